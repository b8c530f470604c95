// Direct float32 convolutions for XLA's CPU programs: images NHWC, weights HWIO, any stride, padding and groups.
//
// A tile of output pixels and channels stays in registers while all taps are added to it, so that no patches are
// written to memory. XLA calls a handler through its typed foreign function interface (c_api.h, which comes with
// jaxlib) and lends its own threads. Results do not depend on their number.
//
// Letters: images n, h, w, i; outputs p, q, o; weights kh, kw, i / groups, o; strides sh, sw; dilations dh, dw, which
// only depthwise convolutions have here.

#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "xla/ffi/api/c_api.h"

// Accumulators of two vectors: enough to hide the latency of a multiply-add, few enough for the registers.
#if defined(__AVX512F__)
#define LANES 16
#define TALL 8
#elif defined(__AVX__)
#define LANES 8
#define TALL 6
#else
#define LANES 4
#define TALL 6
#endif
#define MOST 8  // rows of a tile of one vector, and of the arrays of accumulators
#define UNROLL _Pragma("GCC unroll 8")
#define INLINE static inline __attribute__((always_inline))

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int64_t num;

INLINE vec load(const float *x) { return *(const vec *)x; }
INLINE void store(float *x, vec v) { *(vec *)x = v; }
static num least(num a, num b) { return a < b ? a : b; }
static num most(num a, num b) { return a > b ? a : b; }
static num up(num a, num b) { return (a + b - 1) / b; }
static num whole(num floats) { return up(floats, LANES) * LANES; }

typedef struct {
  num n, h, w, i, p, q, o, kh, kw, sh, sw, top, left, groups, dh, dw;
} Conv;

typedef struct Job {
  void (*run)(struct Job *, num);
  num count;                      // tasks
  atomic_llong next, done, held;  // task to be taken, tasks done, holders of this struct
  atomic_int failed;              // no memory
  Conv c;
  const float *x, *w;  // images and weights, or images and output gradients
  float *y, *packed;   // result; packed weights, or one weight gradient a task
  num images, parts;   // forward: images of a task, tasks that share an image's rows
  num slices;          // forward: tasks that share the output channels
  num sums;            // weight gradients to be added
} Job;

// ---- tasks on XLA's threads ----------------------------------------------------------------------------------

static float *scratch(Job *job, num floats) {
  float *x = aligned_alloc(64, up(4 * (floats + LANES), 64) * 64);
  if (!x) atomic_store(&job->failed, 1);
  return x;
}

static void work(Job *job) {
  for (num k; (k = atomic_fetch_add(&job->next, 1)) < job->count; atomic_fetch_add(&job->done, 1)) job->run(job, k);
}

static void leave(Job *job) {
  if (atomic_fetch_sub(&job->held, 1) == 1) free(job);
}

static void help(void *job) {
  work(job);
  leave(job);
}

// Runs all tasks. A helper that XLA starts late finds none left, so nothing waits for a thread that is not free.
static void spread(const XLA_FFI_CallFrame *f, Job *job) {
  num threads = 1;
  XLA_FFI_ThreadPool_NumThreads_Args ask = {XLA_FFI_ThreadPool_NumThreads_Args_STRUCT_SIZE, NULL, f->ctx, &threads};
  XLA_FFI_Error *error = f->api->XLA_FFI_ThreadPool_NumThreads(&ask);
  atomic_store(&job->next, 0);
  atomic_store(&job->done, 0);
  for (num k = 1; !error && k < least(threads, job->count); ++k) {
    atomic_fetch_add(&job->held, 1);
    XLA_FFI_ThreadPool_Schedule_Args plan = {XLA_FFI_ThreadPool_Schedule_Args_STRUCT_SIZE, NULL, f->ctx, help, job};
    error = f->api->XLA_FFI_ThreadPool_Schedule(&plan);
    if (error) atomic_fetch_sub(&job->held, 1);
  }
  if (error) {  // no pool: this thread does it all
    XLA_FFI_Error_Destroy_Args drop = {XLA_FFI_Error_Destroy_Args_STRUCT_SIZE, NULL, error};
    f->api->XLA_FFI_Error_Destroy(&drop);
  }
  work(job);
  while (atomic_load(&job->done) < job->count) sched_yield();
}

// ---- copies --------------------------------------------------------------------------------------------------

// Rows first, first + 1, ... of a padded image, `cols` columns, channels from `from` on: `take` of them, in `wide`.
static void pad(const float *x, const Conv *c, num first, num rows, num cols, num from, num take, num wide, float *out) {
  for (num r = first - c->top; r < first - c->top + rows; ++r, out += cols * wide) {
    num left = r < 0 || r >= c->h ? cols : least(c->left > 0 ? c->left : 0, cols), skip = left - c->left;
    num seen = left == cols ? 0 : least(c->w - skip, cols - left);
    if (seen < 0) seen = 0;
    memset(out, 0, 4 * left * wide);
    const float *row = x + (r * c->w + skip) * c->i + from;
    if (take == c->i && wide == take)
      memcpy(out + left * wide, row, 4 * seen * wide);
    else
      for (num k = 0; k < seen; ++k) {
        memcpy(out + (left + k) * wide, row + k * c->i, 4 * take);
        memset(out + (left + k) * wide + take, 0, 4 * (wide - take));
      }
    memset(out + (left + seen) * wide, 0, 4 * (cols - left - seen) * wide);
  }
}

// `rows` rows of `take` numbers, from a row length of `from` to one of `wide`, the rest zeros.
static void widen(const float *x, num rows, num from, num take, num wide, float *out) {
  for (num r = 0; r < rows; ++r, x += from, out += wide) {
    memcpy(out, x, 4 * take);
    memset(out + take, 0, 4 * (wide - take));
  }
}

// ---- forward: y[j, o] = sum over a, k of x[j][a * row + k] w[a, k, o], k running over a row of taps ------------

INLINE void tile(const float *const *x, num row, num kh, num k, const float *w, float *y, num step, num take, const int P, const int V) {
  vec sum[MOST][2];
  UNROLL for (int j = 0; j < P; ++j) UNROLL for (int v = 0; v < V; ++v) sum[j][v] = (vec){0};
  for (num a = 0; a < kh * row; a += row)
    // Twice a turn: a tenth faster. In dtile it would be a quarter slower.
    _Pragma("GCC unroll 2") for (num b = a; b < a + k; ++b, w += V * LANES) {
      vec z[2];
      UNROLL for (int v = 0; v < V; ++v) z[v] = load(w + v * LANES);
      UNROLL for (int j = 0; j < P; ++j) UNROLL for (int v = 0; v < V; ++v) sum[j][v] += z[v] * x[j][b];
    }
  if (take == V * LANES) {
    UNROLL for (int j = 0; j < P; ++j) UNROLL for (int v = 0; v < V; ++v) store(y + j * step + v * LANES, sum[j][v]);
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

static void tiles(const float *const *x, num row, num kh, num k, const float *w, float *y, num step, num take, int rows, int V) {
  if (V == 2) {
    ROWS(2, tile, x, row, kh, k, w, y, step, take)
  } else {
    ROWS(1, tile, x, row, kh, k, w, y, step, take)
  }
}

// One channel a group: every channel is its own sum, a vector of them at a time, for four pixels of a row at once.
static void depthwise(const Conv *c, const float *x, num row, num wide, const float *w, float *y, num rows) {
  for (num p = 0; p < rows; ++p)
    for (num q = 0; q < c->q; q += 4) {
      num step = c->sw * wide, P = least(4, c->q - q);
      const float *first = x + p * c->sh * row + q * step;
      for (num o = 0; o < wide; o += LANES) {
        vec sum[4] = {{0}};
        for (num a = 0; a < c->kh; ++a)
          for (num b = 0; b < c->kw; ++b) {
            const float *at = first + a * c->dh * row + b * c->dw * wide + o;
            vec z = load(w + (a * c->kw + b) * wide + o);
            if (P == 4) {
              UNROLL for (int j = 0; j < 4; ++j) sum[j] += z * load(at + j * step);
            } else {
              for (int j = 0; j < P; ++j) sum[j] += z * load(at + j * step);
            }
          }
        for (int j = 0; j < P; ++j) memcpy(y + (p * c->q + q + j) * c->o + o, &sum[j], 4 * least(LANES, c->o - o));
      }
    }
}

static void forward_task(Job *job, num k) {
  const Conv c = job->c;
  num part = k % job->parts, p0 = c.p * part / job->parts, p1 = c.p * (part + 1) / job->parts;
  num slice = k / job->parts % job->slices;
  num n0 = k / job->parts / job->slices * job->images, images = least(job->images, c.n - n0);
  num cols = (c.q - 1) * c.sw + (c.kw - 1) * c.dw + 1, rows = (p1 - p0 - 1) * c.sh + (c.kh - 1) * c.dh + 1;
  num i = c.i / c.groups, o = c.o / c.groups;
  int depth = i == 1 && o == 1;
  num take = depth ? c.i : i, wide = depth ? whole(take) : i, row = cols * wide, image = rows * row;
  const float *x = job->x + n0 * c.h * c.w * c.i;
  float *y = job->y + (n0 * c.p + p0) * c.q * c.o, *own = NULL;
  if (p1 <= p0 || images <= 0) return;
  int inside = c.top <= 0 && c.left <= 0 && p0 * c.sh - c.top + rows <= c.h && cols - c.left <= c.w;
  if (inside && wide == c.i) {  // the image itself
    row = c.w * c.i, image = c.h * row;
    x += (p0 * c.sh - c.top) * row - c.left * c.i;
  } else if (!(own = scratch(job, images * image))) {
    return;
  }
  num pixels = images * (p1 - p0) * c.q, vectors = up(o, LANES), taps = c.kw * i;
  for (num g = 0; g < (depth ? 1 : c.groups); ++g) {
    if (own)
      for (num n = 0; n < images; ++n)
        pad(x + n * c.h * c.w * c.i, &c, p0 * c.sh, rows, cols, g * i, take, wide, own + n * image);
    const float *seen = own ? own : x, *w = job->packed + g * c.kh * taps * vectors * LANES;
    if (depth) {
      for (num n = 0; n < images; ++n) depthwise(&c, seen + n * image, row, wide, w, y + n * c.p * c.q * c.o, p1 - p0);
      break;
    }
    num pairs = up(vectors, 2), end = least(vectors, pairs * (slice + 1) / job->slices * 2);
    for (num v = pairs * slice / job->slices * 2; v < end; v += 2) {
      int V = (int)least(2, vectors - v);
      num tall = V == 2 ? TALL : MOST, count = up(pixels, tall), p = 0, q = 0, n = 0;
      for (num t = 0; t < count; ++t) {
        num from = pixels * t / count, size = pixels * (t + 1) / count - from;
        const float *at[MOST];
        for (num j = 0; j < size; ++j) {
          at[j] = seen + n * image + p * c.sh * row + q * c.sw * i;
          if (++q == c.q) q = 0, ++p;
          if (p == p1 - p0) p = 0, ++n;
        }
        tiles(at, row, c.kh, taps, w + v * c.kh * taps * LANES, y + from * c.o + g * o + v * LANES, c.o,
              least(V * LANES, o - v * LANES), (int)size, V);
      }
    }
  }
  free(own);
}

// Weights by group and pair of vectors of output channels: each tile reads its own in one run.
static void pack(const Conv *c, const float *w, float *out) {
  num o = c->o / c->groups, taps = c->kh * c->kw * (c->i / c->groups);
  if (o == 1 && c->i == c->groups) {
    widen(w, taps, c->o, c->o, whole(c->o), out);
    return;
  }
  for (num g = 0; g < c->groups; ++g)
    for (num v = 0; v < up(o, LANES); v += 2) {
      num wide = least(2, up(o, LANES) - v) * LANES;
      widen(w + g * o + v * LANES, taps, c->o, least(wide, o - v * LANES), wide, out);
      out += taps * wide;
    }
}

// ---- gradient of the weights: dw[m, o] += sum over rows and pixels of x[r * row + q * step + m] g[r, q, o] -----

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

INLINE void dtaps(const float *x, num row, num step, num tap, num wide, const float *g, num rows, num q, float *dw, const int B) {
  vec sum[MOST];
  UNROLL for (int b = 0; b < B; ++b) sum[b] = (vec){0};
  for (num r = 0; r < rows; ++r, x += row) {
    const float *at = x;
    for (num k = 0; k < q; ++k, at += step, g += wide) {
      vec z = load(g);
      UNROLL for (int b = 0; b < B; ++b) sum[b] += z * load(at + b * tap);
    }
  }
  UNROLL for (int b = 0; b < B; ++b) store(dw + b * wide, load(dw + b * wide) + sum[b]);
}

static void depthwise_gradient(const Conv *c, const float *x, num row, num wide, const float *g, float *dw) {
  num step = c->sw * wide, tap = c->dw * wide;
  for (num o = 0; o < wide; o += LANES)
    for (num a = 0; a < c->kh; ++a)
      for (num b = 0; b < c->kw;) {
        const float *at = x + a * c->dh * row + b * tap + o;
        float *to = dw + (a * c->kw + b) * wide + o;
        num left = c->kw - b;
        if (left >= 5) dtaps(at, c->sh * row, step, tap, wide, g + o, c->p, c->q, to, 5), b += 5;
        else if (left >= 3) dtaps(at, c->sh * row, step, tap, wide, g + o, c->p, c->q, to, 3), b += 3;
        else dtaps(at, c->sh * row, step, tap, wide, g + o, c->p, c->q, to, 1), b += 1;
      }
}

// Numbers of the weight gradient that a task adds up: [groups, kh, kw * i, o], with o whole vectors.
static num gradient_size(const Conv *c) {
  num i = c->i / c->groups, o = c->o / c->groups;
  return i == 1 && o == 1 ? c->kh * c->kw * whole(c->o) : c->groups * c->kh * c->kw * i * whole(o);
}

static void gradient_task(Job *job, num k) {
  const Conv c = job->c;
  num i = c.i / c.groups, o = c.o / c.groups, cols = (c.q - 1) * c.sw + (c.kw - 1) * c.dw + 1, rows = (c.p - 1) * c.sh + (c.kh - 1) * c.dh + 1;
  int depth = i == 1 && o == 1;
  num take = depth ? c.i : i, out = depth ? c.o : o, wide = whole(out), xs = depth ? wide : i, row = cols * xs;
  num taps = c.kw * i, size = gradient_size(&c) / (depth ? 1 : c.groups);
  float *dw = job->packed + k * gradient_size(&c);
  memset(dw, 0, 4 * gradient_size(&c));
  float *own = scratch(job, rows * row), *g_own = wide == c.o ? NULL : scratch(job, c.p * c.q * wide);
  // Rows of which images and gradients stay in the nearest cache, and that pay for loading the sums.
  num block = least(c.p, up(64, c.q) > 4096 / (c.q * (i + o)) ? up(64, c.q) : 4096 / (c.q * (i + o)));
  for (num n = c.n * k / job->count; own && (wide == c.o || g_own) && n < c.n * (k + 1) / job->count; ++n)
    for (num part = 0; part < (depth ? 1 : c.groups); ++part, dw += size) {
      if (part == 0) dw = job->packed + k * gradient_size(&c);
      pad(job->x + n * c.h * c.w * c.i, &c, 0, rows, cols, part * i, take, xs, own);
      const float *g = job->w + n * c.p * c.q * c.o + part * o;
      if (g_own) widen(g, c.p * c.q, c.o, out, wide, g_own), g = g_own;
      if (depth) {
        depthwise_gradient(&c, own, row, wide, g, dw);
        continue;
      }
      for (num p = 0; p < c.p; p += block)
        for (num v = 0; v < wide; v += 2 * LANES) {
          int V = (int)least(2, (wide - v) / LANES);
          num tall = V == 2 ? TALL : MOST, count = up(taps, tall);
          for (num a = 0; a < c.kh; ++a)
            for (num t = 0; t < count; ++t) {
              num m = taps * t / count, M = taps * (t + 1) / count - m;
              // g has rows of `wide` numbers, of which this tile takes two vectors.
              dtiles(own + (p * c.sh + a) * row + m, c.sh * row, c.sw * i, g + p * c.q * wide + v, wide,
                     least(block, c.p - p), c.q, dw + (a * taps + m) * wide + v, (int)M, V);
            }
        }
    }
  free(own);
  free(g_own);
}

// A row of the weight gradient: adds the tasks' sums, in their order.
static void add_task(Job *job, num k) {
  const Conv *c = &job->c;
  num o = c->o / c->groups, i = c->i / c->groups, rows = c->kh * c->kw * i, size = gradient_size(c);
  int depth = i == 1 && o == 1;
  num groups = depth ? 1 : c->groups, out = depth ? c->o : o, wide = whole(out);
  for (num g = 0; g < groups; ++g) {
    const float *from = job->packed + (g * rows + k) * wide;
    float *y = job->y + k * c->o + g * o;
    memcpy(y, from, 4 * out);
    for (num t = 1; t < job->sums; ++t)
      for (num j = 0; j < out; ++j) y[j] += from[t * size + j];
  }
}

// ---- what XLA calls ------------------------------------------------------------------------------------------

static int weight_gradient(const XLA_FFI_CallFrame *f, Job *job) {
  const Conv *c = &job->c;
  num sums = (1 << 24) / gradient_size(c);  // 64 MiB
  job->sums = job->count = least(up(c->n, 4), least(16, most(1, sums)));
  job->packed = scratch(job, job->sums * gradient_size(c));
  Job *add = calloc(1, sizeof(Job));  // late helpers may still look at the first job
  if (job->packed && add) {
    job->run = gradient_task;
    spread(f, job);
    *add = (Job){.run = add_task, .count = c->kh * c->kw * (c->i / c->groups), .held = 1, .c = *c,
                 .y = job->y, .packed = job->packed, .sums = job->sums};
    spread(f, add);
    leave(add);
    return 1;
  }
  free(add);
  return 0;
}

static int convolution(const XLA_FFI_CallFrame *f, Job *job) {
  const Conv *c = &job->c;
  num i = c->i / c->groups, o = c->o / c->groups, line = ((c->q - 1) * c->sw + c->kw) * i;
  job->images = up(48, c->p * c->q);                                       // full tiles
  job->parts = least(up(c->p, 8), up(line * c->p * c->sh, 1 << 15));       // the second cache holds the padded rows
  num blocks = up(c->n, job->images), tasks = 16;  // work for many threads
  // Parts of an image of at least four tiles: fewer would read all weights for few pixels.
  if (job->parts * blocks < tasks)
    job->parts = most(job->parts, least(c->p, least(c->p * c->q / 24, up(tasks, blocks))));
  if (job->parts > 1) job->images = 1;
  blocks = up(c->n, job->images) * job->parts;
  int depth = i == 1 && o == 1;
  job->slices = depth || blocks >= tasks ? 1 : least(up(up(o, LANES), 2), up(tasks, blocks));
  job->count = blocks * job->slices;
  job->packed = scratch(job, c->kh * c->kw * i * (depth ? whole(c->o) : c->groups * whole(o)));
  if (!job->packed) return 0;
  pack(c, job->w, job->packed);
  job->run = forward_task;
  spread(f, job);
  return 1;
}

static XLA_FFI_Error *handle(XLA_FFI_CallFrame *f, int (*run)(const XLA_FFI_CallFrame *, Job *)) {
  if (f->extension_start && f->extension_start->type == XLA_FFI_Extension_Metadata) {
    XLA_FFI_Api_Version *version = &((XLA_FFI_Metadata_Extension *)f->extension_start)->metadata->api_version;
    version->major_version = XLA_FFI_API_MAJOR;
    version->minor_version = XLA_FFI_API_MINOR;
    return NULL;
  }
  const XLA_FFI_Buffer *x = f->args.args[0], *w = f->args.args[1], *y = f->rets.rets[0];
  const XLA_FFI_Buffer *out = run == convolution ? y : w;
  const num *v = ((const XLA_FFI_Array *)f->attrs.attrs[0])->data;
  Job *job = calloc(1, sizeof(Job));
  int done = 0;
  if (job) {
    job->c = (Conv){x->dims[0], x->dims[1], x->dims[2], x->dims[3], out->dims[1], out->dims[2], out->dims[3],
                    v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8]};
    job->x = x->data, job->w = w->data, job->y = y->data;
    atomic_store(&job->held, 1);
    done = run(f, job) && !atomic_load(&job->failed);
    free(job->packed);
    leave(job);
  }
  if (done) return NULL;
  XLA_FFI_Error_Create_Args error = {XLA_FFI_Error_Create_Args_STRUCT_SIZE, NULL, "mcjax: no memory for a convolution",
                                     XLA_FFI_Error_Code_RESOURCE_EXHAUSTED};
  return f->api->XLA_FFI_Error_Create(&error);
}

XLA_FFI_Error *mcjax_convolution(XLA_FFI_CallFrame *f) { return handle(f, convolution); }
XLA_FFI_Error *mcjax_weight_gradient(XLA_FFI_CallFrame *f) { return handle(f, weight_gradient); }
