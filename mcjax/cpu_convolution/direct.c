// Direct float32 convolutions for XLA's CPU programs: images NHWC, weights HWIO, any stride, padding and groups.
//
// A tile of output pixels and channels stays in registers while all taps are added to it, so that no patches are
// written to memory. Letters are those of tasks.h; weights are kh, kw, i / groups, o.

#include "register_tiles.h"
#include "tasks.h"

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
              least(V * LANES, o - v * LANES), (int)size, V, job->pairs, 0);
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

// The same of bfloat16, [kh, kw, 2 * i, o]: each 32 bits are the weights of two input channels.
static void pack_pairs(const Conv *c, const uint16_t *w, float *out) {
  uint16_t *to = (uint16_t *)out;
  for (num v = 0; v < up(c->o, LANES); v += 2) {
    num wide = least(2, up(c->o, LANES) - v) * LANES;
    for (num pair = 0; pair < c->kh * c->kw * c->i; ++pair)
      for (num o = v * LANES; o < v * LANES + wide; ++o)
        for (int k = 0; k < 2; ++k) *to++ = o < c->o ? w[(2 * pair + k) * c->o + o] : 0;
  }
}

// ---- gradient of the weights: dw[m, o] += sum over rows and pixels of x[r * row + q * step + m] g[r, q, o] -----

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
  if (!job->packed) return 0;
  job->run = gradient_task;
  spread(f, job);
  return then(f, job, add_task, c->kh * c->kw * (c->i / c->groups));
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
  if (job->pairs) pack_pairs(c, (const uint16_t *)job->w, job->packed);
  else pack(c, job->w, job->packed);
  job->run = forward_task;
  spread(f, job);
  return 1;
}

// The window is an attribute: [kh, kw, sh, sw, top, left, groups, dh, dw]. Images and weights are float32, or bfloat16
// with an even number of channels; the result is float32.
static XLA_FFI_Error *handle(XLA_FFI_CallFrame *f, int (*run)(const XLA_FFI_CallFrame *, Job *)) {
  if (asks_version(f)) return NULL;
  const XLA_FFI_Buffer *x = f->args.args[0], *w = f->args.args[1], *y = f->rets.rets[0];
  const XLA_FFI_Buffer *out = run == convolution ? y : w;
  const num *v = window(f);
  int pairs = x->dtype == XLA_FFI_DataType_BF16;
  return finish(f, run, (Job){.x = x->data, .w = w->data, .y = y->data, .pairs = pairs,
                              .c = {x->dims[0], x->dims[1], x->dims[2], x->dims[3] / (pairs ? 2 : 1), out->dims[1], out->dims[2], out->dims[3],
                                    v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8]}});
}

XLA_FFI_Error *mcjax_convolution(XLA_FFI_CallFrame *f) { return handle(f, convolution); }
XLA_FFI_Error *mcjax_weight_gradient(XLA_FFI_CallFrame *f) { return handle(f, weight_gradient); }

// Floats of a vector.
int mcjax_lanes(void) { return LANES; }

// Whether convolutions of bfloat16 can be computed.
int mcjax_sums_pairs(void) {
#ifdef __AVX512BF16__
  return 1;
#else
  return 0;
#endif
}
