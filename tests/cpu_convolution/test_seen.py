from hypothesis import given
from hypothesis import strategies as st

from mcjax.cpu_convolution import seen


@given(
    st.integers(1, 4), st.integers(1, 5), st.integers(1, 4), st.integers(1, 3), st.integers(-3, 6)
)
def test_cut_are_the_taps_at_the_ends_that_meet_padding_alone(n, k, m, s, low):
    """Beside every pair of an output pixel and a tap, looked at one by one."""
    high = (m - 1) * s + k - n - low
    cut, left = seen.of((n,), (k,), (m,), stride=(s,), padding=((low, high),))
    ((first, after),) = cut
    meets = [any(0 <= p * s + a - low < n for p in range(m)) for a in range(k)]
    stop = k - after
    assert not any(meets[:first] + meets[stop:])
    if any(meets) and s <= n:  # a wide stride may step over the image
        assert all((meets[first], meets[stop - 1]))
    assert 0 <= first < stop <= k
    # What is left sees the same pixels: tap a of before is tap a - first.
    ((low_left, high_left),) = left
    assert low_left == low - first
    assert n + low_left + high_left == (m - 1) * s + (stop - first)
