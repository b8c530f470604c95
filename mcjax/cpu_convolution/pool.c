// Max-pooling of float32 images NHWC, and its derivatives: XLA's own gradient (select-and-scatter) takes ten times as long.
//
// All three compare the pixels of a window anew, a vector of channels at a time, instead of keeping where the maximum
// was. The first pixel of several equal ones is the maximum. Tasks are images: of windows that overlap, each adds to the
// others' pixels.

#include "tasks.h"

typedef int32_t ints __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

INLINE ints bits(vec v) { return (ints)v; }
INLINE vec where(ints m, vec a, vec b) { return (vec)((m & bits(a)) | (~m & bits(b))); }

// The first k floats; the rest zeros.
INLINE vec load_some(const float *x, num k) {
  if (k == LANES) return load(x);
  vec v = {0};
  memcpy(&v, x, 4 * k);
  return v;
}

INLINE void store_some(float *x, vec v, num k) {
  if (k == LANES) store(x, v);
  else memcpy(x, &v, 4 * k);
}

enum { LARGEST, TAKEN, SPREAD, PLACED };

// One window of k channels. LARGEST: y is x's maximum; TAKEN: y is t where x has it; SPREAD: adds t to y there;
// PLACED: y is t there and 0 elsewhere, for windows that fill the image without overlap.
INLINE void pool(const Conv *c, const float *x, const float *t, float *y, num k, const num kh, const num kw, const int what) {
  vec best = load_some(x, k), taken = what == LARGEST ? best : load_some(t, k);
  ints place = {0};
  for (num a = 0; a < kh; ++a)
    for (num b = 0; b < kw; ++b) {
      num at = (a * c->w + b) * c->i;
      vec v = load_some(x + at, k);
      ints higher = (v > best) | (v != v);  // not a number stays
      best = where(higher, v, best);
      if (what == TAKEN) taken = where(higher, load_some(t + at, k), taken);
      if (what >= SPREAD) place = (higher & ((ints){0} + (int)(a * kw + b))) | (~higher & place);
    }
  if (what == LARGEST) store_some(y, best, k);
  if (what == TAKEN) store_some(y, taken, k);
  if (what >= SPREAD)
    for (num a = 0; a < kh; ++a)
      for (num b = 0; b < kw; ++b) {
        float *to = y + (a * c->w + b) * c->i;
        ints here = place == (ints){0} + (int)(a * kw + b);
        vec g = (vec)(here & bits(taken));
        if (what == SPREAD) g += load_some(to, k);
        store_some(to, g, k);
      }
}

// An image.
INLINE void image(const Conv *c, const float *x, const float *t, float *y, const num kh, const num kw, const int what) {
  if (what == SPREAD) memset(y, 0, 4 * c->h * c->w * c->i);
  for (num p = 0; p < c->p; ++p)
    for (num q = 0; q < c->q; ++q) {
      num in = (p * c->sh * c->w + q * c->sw) * c->i, out = (p * c->q + q) * c->i;
      const float *from = x + in, *other = what >= SPREAD ? t + out : what == TAKEN ? t + in : NULL;
      float *to = y + (what >= SPREAD ? in : out);
      num o = 0;
      for (; o + LANES <= c->i; o += LANES) pool(c, from + o, other + (other ? o : 0), to + o, LANES, kh, kw, what);
      if (o < c->i) pool(c, from + o, other + (other ? o : 0), to + o, c->i - o, kh, kw, what);
    }
}

INLINE void task(Job *job, num n, const int what) {
  const Conv *c = &job->c;
  num in = c->h * c->w * c->i, out = c->p * c->q * c->i;
  const float *x = job->x + n * in, *t = what >= SPREAD ? job->w + n * out : what == TAKEN ? job->w + n * in : NULL;
  float *y = job->y + n * (what >= SPREAD ? in : out);
  // Known windows, so that the compiler unrolls them.
  if (c->kh == 2 && c->kw == 2) image(c, x, t, y, 2, 2, what);
  else if (c->kh == 3 && c->kw == 3) image(c, x, t, y, 3, 3, what);
  else image(c, x, t, y, c->kh, c->kw, what);
}

static void largest_task(Job *job, num n) { task(job, n, LARGEST); }
static void taken_task(Job *job, num n) { task(job, n, TAKEN); }

static void spread_task(Job *job, num n) {
  const Conv *c = &job->c;
  int tiled = c->kh == c->sh && c->kw == c->sw && c->h == c->p * c->kh && c->w == c->q * c->kw;
  if (tiled) task(job, n, PLACED);
  else task(job, n, SPREAD);
}

static int run(const XLA_FFI_CallFrame *f, Job *job) {
  spread(f, job);
  return 1;
}

// Arguments: x, and t of TAKEN and SPREAD. The window is an attribute: [kh, kw, sh, sw].
static XLA_FFI_Error *handle(XLA_FFI_CallFrame *f, const int what) {
  if (asks_version(f)) return NULL;
  const XLA_FFI_Buffer *x = f->args.args[0], *t = what == LARGEST ? NULL : f->args.args[1], *y = f->rets.rets[0];
  const num *v = window(f), *out = what == SPREAD ? t->dims : y->dims;
  return finish(f, run, (Job){.run = what == LARGEST ? largest_task : what == TAKEN ? taken_task : spread_task,
                              .count = x->dims[0], .x = x->data, .w = t ? t->data : NULL, .y = y->data,
                              .c = {.n = x->dims[0], .h = x->dims[1], .w = x->dims[2], .i = x->dims[3], .p = out[1], .q = out[2],
                                    .kh = v[0], .kw = v[1], .sh = v[2], .sw = v[3]}});
}

XLA_FFI_Error *mcjax_max_pool(XLA_FFI_CallFrame *f) { return handle(f, LARGEST); }
XLA_FFI_Error *mcjax_max_pool_taken(XLA_FFI_CallFrame *f) { return handle(f, TAKEN); }
XLA_FFI_Error *mcjax_max_pool_spread(XLA_FFI_CallFrame *f) { return handle(f, SPREAD); }
