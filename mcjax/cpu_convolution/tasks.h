// What direct.c, winograd.c and pool.c share: vectors, tasks on XLA's threads, and how XLA calls and is answered.
//
// XLA calls a handler through its typed foreign function interface (c_api.h, which comes with jaxlib) and lends its own
// threads. Results do not depend on their number.
//
// Letters: images n, h, w, i; outputs p, q, o; windows kh, kw; strides sh, sw; dilations dh, dw, which only depthwise
// convolutions have.

#pragma once

#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

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
static inline num least(num a, num b) { return a < b ? a : b; }
static inline num most(num a, num b) { return a > b ? a : b; }
static inline num up(num a, num b) { return (a + b - 1) / b; }
static inline num whole(num floats) { return up(floats, LANES) * LANES; }

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
  int pairs;           // forward: images and weights are bfloat16, and c.i counts pairs of channels
  num tile, block;     // Winograd: pixels of a tile's side, and tiles that a task takes at a time
} Job;

// ---- tasks on XLA's threads ----------------------------------------------------------------------------------

static inline float *scratch(Job *job, num floats) {
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

// Runs a second job on the operands of the first: late helpers may still look at that one.
static inline int then(const XLA_FFI_CallFrame *f, const Job *first, void (*run)(Job *, num), num count) {
  Job *job = calloc(1, sizeof(Job));
  if (!job) return 0;
  *job = (Job){.run = run, .count = count, .c = first->c, .x = first->x, .w = first->w, .y = first->y, .packed = first->packed,
               .tile = first->tile, .block = first->block, .slices = first->slices, .sums = first->sums};
  atomic_store(&job->held, 1);
  spread(f, job);
  int done = !atomic_load(&job->failed);
  leave(job);
  return done;
}

// ---- what XLA calls ------------------------------------------------------------------------------------------

// Whether XLA only asks which version of its interface this is.
static int asks_version(XLA_FFI_CallFrame *f) {
  if (!f->extension_start || f->extension_start->type != XLA_FFI_Extension_Metadata) return 0;
  XLA_FFI_Api_Version *version = &((XLA_FFI_Metadata_Extension *)f->extension_start)->metadata->api_version;
  version->major_version = XLA_FFI_API_MAJOR;
  version->minor_version = XLA_FFI_API_MINOR;
  return 1;
}

// The call's only attribute.
static const num *window(const XLA_FFI_CallFrame *f) { return ((const XLA_FFI_Array *)f->attrs.attrs[0])->data; }

static inline XLA_FFI_Error *refuse(const XLA_FFI_CallFrame *f, XLA_FFI_Error_Code code, const char *why) {
  XLA_FFI_Error_Create_Args error = {XLA_FFI_Error_Create_Args_STRUCT_SIZE, NULL, why, code};
  return f->api->XLA_FFI_Error_Create(&error);
}

// Runs a job to its end.
static XLA_FFI_Error *finish(const XLA_FFI_CallFrame *f, int (*run)(const XLA_FFI_CallFrame *, Job *), Job given) {
  Job *job = calloc(1, sizeof(Job));
  int done = 0;
  if (job) {
    *job = given;
    atomic_store(&job->held, 1);
    done = run(f, job) && !atomic_load(&job->failed);
    free(job->packed);
    leave(job);
  }
  if (done) return NULL;
  return refuse(f, XLA_FFI_Error_Code_RESOURCE_EXHAUSTED, "mcjax: no memory for a convolution");
}
