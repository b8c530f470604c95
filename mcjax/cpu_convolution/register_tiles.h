// Tiles of outputs that stay in registers while products are added to them.

#pragma once

#include "tasks.h"

// ---- y[j, o] (+)= sum over a, k of x[j][a * row + k] w[a, k, o], k running over a row of taps ------------------

// A product, or with bfloat16 two: every 32 bits of x and w are a pair of input channels then.
INLINE vec add(vec sum, vec w, float x, const int pairs) {
#ifdef __AVX512BF16__
  if (pairs) return (vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)w, (__m512bh)_mm512_set1_ps(x));
#endif
  return sum + w * x;
}

INLINE void tile(const float *const *x, num row, num kh, num k, const float *w, float *y, num step, num take, const int pairs, const int adds, const int P, const int V) {
  vec sum[MOST][2];
  UNROLL for (int j = 0; j < P; ++j) UNROLL for (int v = 0; v < V; ++v) sum[j][v] = (vec){0};
  for (num a = 0; a < kh * row; a += row)
    // Twice a turn: a tenth faster. In dtile it would be a quarter slower.
    _Pragma("GCC unroll 2") for (num b = a; b < a + k; ++b, w += V * LANES) {
      vec z[2];
      UNROLL for (int v = 0; v < V; ++v) z[v] = load(w + v * LANES);
      UNROLL for (int j = 0; j < P; ++j) UNROLL for (int v = 0; v < V; ++v) sum[j][v] = add(sum[j][v], z[v], x[j][b], pairs);
    }
  if (take == V * LANES) {
    UNROLL for (int j = 0; j < P; ++j) UNROLL for (int v = 0; v < V; ++v) {
      float *to = y + j * step + v * LANES;
      if (adds) sum[j][v] += load(to);
      store(to, sum[j][v]);
    }
  } else {
    for (int j = 0; j < P; ++j) memcpy(y + j * step, sum[j], 4 * take);
  }
}

// A function of a constant number of rows and vectors, for numbers known at run time.
#define ROWS(V, F, ...)                       \
  switch (rows) {                             \
    case 1: F(__VA_ARGS__, 1, V); break;      \
    case 2: F(__VA_ARGS__, 2, V); break;      \
    case 3: F(__VA_ARGS__, 3, V); break;      \
    case 4: F(__VA_ARGS__, 4, V); break;      \
    case 5: F(__VA_ARGS__, 5, V); break;      \
    case 6: F(__VA_ARGS__, 6, V); break;      \
    case 7: F(__VA_ARGS__, 7, V); break;      \
    case 8: F(__VA_ARGS__, 8, V); break;      \
  }

INLINE void tiles_of(const float *const *x, num row, num kh, num k, const float *w, float *y, num step, num take, int rows, int V, const int pairs, const int adds) {
  if (V == 2) {
    ROWS(2, tile, x, row, kh, k, w, y, step, take, pairs, adds)
  } else {
    ROWS(1, tile, x, row, kh, k, w, y, step, take, pairs, adds)
  }
}

// bfloat16 is for whole sums only, and only whole vectors of channels are added to y.
static void tiles(const float *const *x, num row, num kh, num k, const float *w, float *y, num step, num take, int rows, int V, int pairs, int adds) {
  if (pairs) tiles_of(x, row, kh, k, w, y, step, take, rows, V, 1, 0);
  else if (adds) tiles_of(x, row, kh, k, w, y, step, take, rows, V, 0, 1);
  else tiles_of(x, row, kh, k, w, y, step, take, rows, V, 0, 0);
}

// ---- dw[m, o] += sum over rows and pixels of x[r * row + q * step + m] g[r, q, o] ------------------------------

INLINE void dtile(const float *x, num row, num step, const float *g, num wide, num rows_, num q, float *dw, const int M, const int V) {
  vec sum[MOST][2];
  UNROLL for (int j = 0; j < M; ++j) UNROLL for (int v = 0; v < V; ++v) sum[j][v] = (vec){0};
  for (num r = 0; r < rows_; ++r, x += row) {
    const float *at = x;
    for (num k = 0; k < q; ++k, at += step, g += wide) {
      vec z[2];
      UNROLL for (int v = 0; v < V; ++v) z[v] = load(g + v * LANES);
      UNROLL for (int j = 0; j < M; ++j) UNROLL for (int v = 0; v < V; ++v) sum[j][v] += z[v] * at[j];
    }
  }
  // Added at the end: a sum of short sums is closer than one long sum.
  UNROLL for (int j = 0; j < M; ++j) UNROLL for (int v = 0; v < V; ++v) {
    float *to = dw + j * wide + v * LANES;
    store(to, load(to) + sum[j][v]);
  }
}

static void dtiles(const float *x, num row, num step, const float *g, num wide, num rows_, num q, float *dw, int rows, int V) {
  if (V == 2) {
    ROWS(2, dtile, x, row, step, g, wide, rows_, q, dw)
  } else {
    ROWS(1, dtile, x, row, step, g, wide, rows_, q, dw)
  }
}
