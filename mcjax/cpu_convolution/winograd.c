// Winograd's convolutions F(m x m, r x r) for XLA's CPU programs: images NHWC, weights HWIO, stride 1, any padding and
// groups, whole vectors of channels. The formulas are those of winograd.py.
//
// A task transforms a block of tiles, multiplies it with the weights and transforms it back, all within the
// processor's cache; written to memory are only outputs.
//
// Letters are those of tasks.h; tiles of m x m outputs see a x a pixels, a = m + r - 1; e counts these a * a entries.

#include "register_tiles.h"
#include "tasks.h"

#define ENTRIES 36  // the most
#define EVERY _Pragma("GCC unroll 36")

// ---- the forms, in one dimension --------------------------------------------------------------------------------

// Points 0, 1, -1 and infinity for a = 4; 0, P, -P, Q, -Q and infinity for a = 6.
#define P .75f
#define Q 1.5f
#define P2 (P * P)
#define Q2 (Q * Q)

// y = B^T x
INLINE void pixels(const vec *x, const int s, vec *y, const int t, const int a) {
  if (a == 4) {
    y[0] = x[2 * s] - x[0];
    y[t] = x[2 * s] + x[s];
    y[2 * t] = x[2 * s] - x[s];
    y[3 * t] = x[3 * s] - x[s];
    return;
  }
  vec even = x[4 * s] - Q2 * x[2 * s], odd = P * (x[3 * s] - Q2 * x[s]);
  y[0] = x[4 * s] - (P2 + Q2) * x[2 * s] + P2 * Q2 * x[0];
  y[t] = even + odd;
  y[2 * t] = even - odd;
  even = x[4 * s] - P2 * x[2 * s], odd = Q * (x[3 * s] - P2 * x[s]);
  y[3 * t] = even + odd;
  y[4 * t] = even - odd;
  y[5 * t] = x[5 * s] - (P2 + Q2) * x[3 * s] + P2 * Q2 * x[s];
}

// y = A^T x
INLINE void outputs(const vec *x, const int s, vec *y, const int t, const int a, const int m) {
  vec even = x[s] + x[2 * s], odd = x[s] - x[2 * s];
  if (a == 4) {
    y[0] = x[0] + even;
    y[t] = odd + x[3 * s];
    return;
  }
  vec even2 = x[3 * s] + x[4 * s], odd2 = x[3 * s] - x[4 * s];
  y[0] = x[0] + even + even2;
  y[t] = P * odd + Q * odd2;
  if (m == 4) {
    y[2 * t] = P2 * even + Q2 * even2;
    y[3 * t] = P2 * P * odd + Q2 * Q * odd2;
  }
  y[(m - 1) * t] += x[5 * s];
}

// y = A x
INLINE void gradients(const vec *x, const int s, vec *y, const int t, const int a, const int m) {
  y[0] = x[0];
  y[(a - 1) * t] = x[(m - 1) * s];
  if (a == 4) {
    y[t] = x[0] + x[s];
    y[2 * t] = x[0] - x[s];
    return;
  }
  vec even = x[0], odd = x[s], even2 = x[0], odd2 = x[s];
  if (m == 4) {
    even += P2 * x[2 * s], odd += P2 * x[3 * s];
    even2 += Q2 * x[2 * s], odd2 += Q2 * x[3 * s];
  }
  y[t] = even + P * odd;
  y[2 * t] = even - P * odd;
  y[3 * t] = even2 + Q * odd2;
  y[4 * t] = even2 - Q * odd2;
}

// Row j of G: powers of point j, over the product of its distances from the others.
#define POWERS(x, n) {1 / (n), (x) / (n), (x) * (x) / (n), (x) * (x) * (x) / (n), (x) * (x) * (x) * (x) / (n)}
#define NP (2 * P2 * (P2 - Q2))
#define NQ (2 * Q2 * (Q2 - P2))
static const float G4[4][5] = {{-1}, POWERS(1.f, 2.f), POWERS(-1.f, 2.f), {0, 0, 1}};
static const float G6[6][5] = {POWERS(0.f, P2 * Q2), POWERS(P, NP), POWERS(-P, NP), POWERS(Q, NQ), POWERS(-Q, NQ), {0}};

INLINE float entry_of_G(const int j, const int k, const int a, const int r) {
  return j == a - 1 ? k == r - 1 : a == 4 ? G4[j][k] : G6[j][k];
}

// y = G x, or G^T x
INLINE void weights(const vec *x, const int s, vec *y, const int t, const int a, const int r, const int turned) {
  const int rows = turned ? r : a, cols = turned ? a : r;
  UNROLL for (int j = 0; j < rows; ++j) {
    vec sum = {0};
    UNROLL for (int k = 0; k < cols; ++k) sum += (turned ? entry_of_G(k, j, a, r) : entry_of_G(j, k, a, r)) * x[k * s];
    y[j * t] = sum;
  }
}

enum { PIXELS, OUTPUTS, GRADIENTS, WEIGHTS, TAPS };

INLINE void along(const int what, const vec *x, const int s, vec *y, const int t, const int m, const int r) {
  const int a = m + r - 1;
  if (what == PIXELS) pixels(x, s, y, t, a);
  if (what == OUTPUTS) outputs(x, s, y, t, a, m);
  if (what == GRADIENTS) gradients(x, s, y, t, a, m);
  if (what == WEIGHTS) weights(x, s, y, t, a, r, 0);
  if (what == TAPS) weights(x, s, y, t, a, r, 1);
}

// The same along both dimensions: from x[cols][cols] to y[rows][rows].
INLINE void both(const int what, const vec *x, vec *y, const int rows, const int cols, const int m, const int r) {
  vec half[ENTRIES];
  UNROLL for (int c = 0; c < cols; ++c) along(what, x + c, cols, half + c, cols, m, r);
  UNROLL for (int j = 0; j < rows; ++j) along(what, half + j * cols, 1, y + j * rows, 1, m, r);
}

// A function of constants m and r, for those known at run time.
#define FORM(m, r, F, ...)                 \
  switch (10 * (m) + (r)) {                \
    case 23: F(__VA_ARGS__, 2, 3); break;  \
    case 43: F(__VA_ARGS__, 4, 3); break;  \
    case 25: F(__VA_ARGS__, 2, 5); break;  \
  }

// ---- tiles ----------------------------------------------------------------------------------------------------

typedef struct {
  num n, p, q;  // image, and the first output's row and column
} Tile;

static Tile tile_at(const Conv *c, num m, num t) {
  num th = up(c->p, m), tw = up(c->q, m);
  return (Tile){t / (th * tw), t / tw % th * m, t % tw * m};
}

INLINE void next(const Conv *c, num m, Tile *z) {
  if ((z->q += m) < c->q) return;
  z->q = 0;
  if ((z->p += m) < c->p) return;
  z->p = 0;
  ++z->n;
}

// Where the pixels of a window of a x a lie, those outside of the image at `zeros`.
INLINE void see(const float *image, num h, num w, num channels, num top, num left, const float *zeros, const float **at, const int a) {
  for (int j = 0; j < a; ++j)
    for (int k = 0; k < a; ++k) {
      num y = top + j, x = left + k;
      at[j * a + k] = y < 0 || y >= h || x < 0 || x >= w ? zeros : image + (y * w + x) * channels;
    }
}

// Numbers from one entry to the next: a line more than the tiles need, or all entries would share few cache sets.
static num plane(num tiles, num channels) { return tiles * channels + 16; }

// v[e, t, i] = (B^T x B) of tiles from `first` on, `take` of their channels.
INLINE void pixels_in(const Conv *c, const float *x, num first, num tiles, num take, const float *zeros, float *v, num step, const int m, const int r) {
  const int a = m + r - 1;
  Tile z = tile_at(c, m, first);
  for (num t = 0; t < tiles; ++t, next(c, m, &z)) {
    const float *at[ENTRIES];
    see(x + z.n * c->h * c->w * c->i, c->h, c->w, c->i, z.p - c->top, z.q - c->left, zeros, at, a);
    for (num i = 0; i < take; i += LANES) {
      vec seen[ENTRIES], out[ENTRIES];
      EVERY for (int e = 0; e < a * a; ++e) seen[e] = load(at[e] + i);
      both(PIXELS, seen, out, a, a, m, r);
      EVERY for (int e = 0; e < a * a; ++e) store(v + e * step + t * take + i, out[e]);
    }
  }
}

// s[e, t, o] = (A g A^T) of the outputs' gradients, which are m x m a tile.
INLINE void gradients_in(const Conv *c, const float *g, num first, num tiles, num take, const float *zeros, float *s, num step, const int m, const int r) {
  const int a = m + r - 1;
  Tile z = tile_at(c, m, first);
  for (num t = 0; t < tiles; ++t, next(c, m, &z)) {
    const float *at[ENTRIES];
    see(g + z.n * c->p * c->q * c->o, c->p, c->q, c->o, z.p, z.q, zeros, at, m);
    for (num o = 0; o < take; o += LANES) {
      vec seen[ENTRIES], out[ENTRIES];
      EVERY for (int e = 0; e < m * m; ++e) seen[e] = load(at[e] + o);
      both(GRADIENTS, seen, out, a, m, m, r);
      EVERY for (int e = 0; e < a * a; ++e) store(s + e * step + t * take + o, out[e]);
    }
  }
}

// y = A^T z A of tiles, `take` channels from `y` on, as far as pixels lie in the image.
INLINE void outputs_out(const Conv *c, const float *z, num step, num first, num tiles, num take, float *y, const int m, const int r) {
  const int a = m + r - 1;
  Tile to = tile_at(c, m, first);
  for (num t = 0; t < tiles; ++t, next(c, m, &to)) {
    float *image = y + ((to.n * c->p + to.p) * c->q + to.q) * c->o;
    num rows = least(m, c->p - to.p), cols = least(m, c->q - to.q);
    for (num o = 0; o < take; o += LANES) {
      vec seen[ENTRIES], out[ENTRIES];
      EVERY for (int e = 0; e < a * a; ++e) seen[e] = load(z + e * step + t * take + o);
      both(OUTPUTS, seen, out, m, a, m, r);
      for (num p = 0; p < rows; ++p)
        for (num q = 0; q < cols; ++q) store(image + (p * c->q + q) * c->o + o, out[p * m + q]);
    }
  }
}

// ---- forward --------------------------------------------------------------------------------------------------

// u[e, i, o] = (G w G^T) of a pair of vectors of output channels; w has rows of `from` numbers.
INLINE void weights_in(const float *w, num channels, num from, num wide, float *u, const int m, const int r) {
  const int a = m + r - 1;
  for (num i = 0; i < channels; ++i)
    for (num o = 0; o < wide; o += LANES) {
      vec taps[ENTRIES], out[ENTRIES];
      EVERY for (int k = 0; k < r * r; ++k) taps[k] = load(w + (k * channels + i) * from + o);
      both(WEIGHTS, taps, out, a, r, m, r);
      EVERY for (int e = 0; e < a * a; ++e) store(u + (e * channels + i) * wide + o, out[e]);
    }
}

static num entries(const Job *job) { return (job->tile + job->c.kh - 1) * (job->tile + job->c.kh - 1); }
static num all_tiles(const Job *job) { return job->c.n * up(job->c.p, job->tile) * up(job->c.q, job->tile); }
static num pairs_of(const Conv *c) { return up(c->o / c->groups, 2 * LANES); }

static void weights_task(Job *job, num k) {
  const Conv *c = &job->c;
  num i = c->i / c->groups, o = c->o / c->groups, from = k % pairs_of(c) * 2 * LANES, first = k / pairs_of(c) * o + from;
  FORM(job->tile, c->kh, weights_in, job->w + first, i, c->o, least(2 * LANES, o - from), job->packed + entries(job) * i * first)
}

#define LONGEST 128  // channels of one sum: a sum of short sums is closer than one long sum

static void winograd_task(Job *job, num k) {
  const Conv *c = &job->c;
  num i = c->i / c->groups, o = c->o / c->groups, all = all_tiles(job);
  num blocks = up(all, job->block), block = k % blocks, slice = k / blocks % job->slices, g = k / blocks / job->slices;
  num first = all * block / blocks, num_tiles = all * (block + 1) / blocks - first;
  num step = plane(num_tiles, i), zstep = plane(num_tiles, 2 * LANES);
  float *v = scratch(job, entries(job) * (step + zstep) + i), *z = v + entries(job) * step, *zeros = z + entries(job) * zstep;
  if (!v) return;
  memset(zeros, 0, 4 * i);
  FORM(job->tile, c->kh, pixels_in, c, job->x + g * i, first, num_tiles, i, zeros, v, step)
  for (num pair = pairs_of(c) * slice / job->slices; pair < pairs_of(c) * (slice + 1) / job->slices; ++pair) {
    num from = g * o + pair * 2 * LANES, wide = least(2 * LANES, o - pair * 2 * LANES), V = wide / LANES;
    const float *u = job->packed + entries(job) * i * from;
    num tall = V == 2 ? TALL : MOST, count = up(num_tiles, tall);
    for (num e = 0; e < entries(job); ++e, u += i * wide)
      for (num part = 0; part < count; ++part) {
        num t = num_tiles * part / count, rows = num_tiles * (part + 1) / count - t;
        for (num from_i = 0; from_i < i; from_i += LONGEST) {
          num k = least(LONGEST, i - from_i);
          const float *at[MOST];
          for (num j = 0; j < rows; ++j) at[j] = v + e * step + (t + j) * i + from_i;
          tiles(at, k, 1, k, u + from_i * wide, z + e * zstep + t * wide, wide, wide, (int)rows, (int)V, 0, from_i > 0);
        }
      }
    FORM(job->tile, c->kh, outputs_out, c, z, zstep, first, num_tiles, wide, job->y + from)
  }
  free(v);
}

// ---- gradient of the weights ----------------------------------------------------------------------------------

#define SLICE_I 64   // channels of a task, whose sums stay in the second cache
#define SLICE_O 128

// dw[., ., i, o] = G^T sum[., i, o] G for `take` rows of `wide` sums; dw's taps are `tap` apart, its rows `to`.
INLINE void weights_out(const float *sum, num take, num wide, float *dw, num tap, num to, const int m, const int r) {
  const int a = m + r - 1;
  for (num i = 0; i < take; ++i)
    for (num o = 0; o < wide; o += LANES) {
      vec seen[ENTRIES], out[ENTRIES];
      EVERY for (int e = 0; e < a * a; ++e) seen[e] = load(sum + (e * take + i) * wide + o);
      both(TAPS, seen, out, r, a, m, r);
      EVERY for (int k = 0; k < r * r; ++k) store(dw + k * tap + i * to + o, out[k]);
    }
}

static num slices_i(const Conv *c) { return up(c->i / c->groups, SLICE_I); }
static num slices_o(const Conv *c) { return up(c->o / c->groups, SLICE_O); }
static num weights_size(const Conv *c) { return c->kh * c->kw * (c->i / c->groups) * c->o; }

static void winograd_gradient_task(Job *job, num k) {
  const Conv *c = &job->c;
  num i = c->i / c->groups, o = c->o / c->groups, all = all_tiles(job);
  num part = k % job->sums, slice = k / job->sums % (slices_i(c) * slices_o(c)), g = k / job->sums / (slices_i(c) * slices_o(c));
  num from_i = slice / slices_o(c) * SLICE_I, from_o = slice % slices_o(c) * SLICE_O;
  num take = least(SLICE_I, i - from_i), wide = least(SLICE_O, o - from_o), n = entries(job);
  num vstep = plane(job->block, take), sstep = plane(job->block, wide);
  float *sum = scratch(job, n * (take * wide + vstep + sstep) + SLICE_O);
  if (!sum) return;
  float *v = sum + n * take * wide, *s = v + n * vstep, *zeros = s + n * sstep;
  memset(sum, 0, 4 * n * take * wide);
  memset(zeros, 0, 4 * SLICE_O);
  const float *x = job->x + g * i + from_i, *dy = job->w + g * o + from_o;
  num end = all * (part + 1) / job->sums;
  for (num first = all * part / job->sums; first < end; first += job->block) {
    num num_tiles = least(job->block, end - first);
    FORM(job->tile, c->kh, pixels_in, c, x, first, num_tiles, take, zeros, v, vstep)
    FORM(job->tile, c->kh, gradients_in, c, dy, first, num_tiles, wide, zeros, s, sstep)
    for (num e = 0; e < n; ++e)
      for (num at = 0; at < wide; at += 2 * LANES) {
        int V = (int)least(2, (wide - at) / LANES);
        num tall = V == 2 ? TALL : MOST, count = up(take, tall);
        for (num t = 0; t < count; ++t) {
          num row = take * t / count, rows = take * (t + 1) / count - row;
          dtiles(v + e * vstep + row, 0, take, s + e * sstep + at, wide, 1, num_tiles, sum + (e * take + row) * wide + at, (int)rows, V);
        }
      }
  }
  float *dw = job->packed + part * weights_size(c) + from_i * c->o + g * o + from_o;
  FORM(job->tile, c->kh, weights_out, sum, take, wide, dw, i * c->o, c->o)
  free(sum);
}

// Rows of the weights: adds the tasks' gradients, in their order.
static void total_task(Job *job, num k) {
  const Conv *c = &job->c;
  float *y = job->y + k * c->o;
  const float *from = job->packed + k * c->o;
  memcpy(y, from, 4 * c->o);
  for (num part = 1; part < job->sums; ++part)
    for (num o = 0; o < c->o; ++o) y[o] += from[part * weights_size(c) + o];
}

// ---- what XLA calls -------------------------------------------------------------------------------------------

static int winograd(const XLA_FFI_CallFrame *f, Job *job) {
  const Conv *c = &job->c;
  num i = c->i / c->groups, tasks = 16;  // work for many threads
  job->block = 32;  // the second cache holds its transformed pixels; fewer would read the weights too often
  num blocks = up(all_tiles(job), job->block);
  job->slices = blocks * c->groups >= tasks ? 1 : least(pairs_of(c), up(tasks, blocks * c->groups));
  job->packed = scratch(job, entries(job) * i * c->o);
  if (!job->packed) return 0;
  job->run = weights_task;
  job->count = c->groups * pairs_of(c);
  spread(f, job);
  return then(f, job, winograd_task, blocks * c->groups * job->slices);
}

static int winograd_gradient(const XLA_FFI_CallFrame *f, Job *job) {
  const Conv *c = &job->c;
  num slices = c->groups * slices_i(c) * slices_o(c);
  job->block = 32;
  job->sums = most(1, least(least(up(16, slices), up(all_tiles(job), job->block)), (1 << 24) / weights_size(c)));  // 64 MiB
  job->packed = scratch(job, job->sums * weights_size(c));
  if (!job->packed) return 0;
  job->run = winograd_gradient_task;
  job->count = job->sums * slices;
  spread(f, job);
  return then(f, job, total_task, c->kh * c->kw * (c->i / c->groups));
}

// The window is an attribute: [kh, kw, sh, sw, top, left, groups, dh, dw, m].
static XLA_FFI_Error *handle(XLA_FFI_CallFrame *f, int (*run)(const XLA_FFI_CallFrame *, Job *)) {
  if (asks_version(f)) return NULL;
  const XLA_FFI_Buffer *x = f->args.args[0], *w = f->args.args[1], *y = f->rets.rets[0], *out = run == winograd ? y : w;
  const num *v = window(f), whole_vectors = v[6] * LANES, form = 10 * v[9] + v[0];
  // Anything else would be read or written out of bounds.
  if (x->dims[3] % whole_vectors || out->dims[3] % whole_vectors || v[0] != v[1] || (form != 23 && form != 43 && form != 25))
    return refuse(f, XLA_FFI_Error_Code_INVALID_ARGUMENT, "mcjax: no such form of Winograd's, or channels that are no whole vectors");
  return finish(f, run, (Job){.x = x->data, .w = w->data, .y = y->data, .tile = v[9],
                              .c = {x->dims[0], x->dims[1], x->dims[2], x->dims[3], out->dims[1], out->dims[2], out->dims[3],
                                    v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8]}});
}

XLA_FFI_Error *mcjax_winograd(XLA_FFI_CallFrame *f) { return handle(f, winograd); }
XLA_FFI_Error *mcjax_winograd_gradient(XLA_FFI_CallFrame *f) { return handle(f, winograd_gradient); }
