/* Counts what Python's three allocator domains are asked for, and does nothing else.
 *
 * Rules:
 *
 * 1. A request counts once, in the domain whose API was called. What pymalloc passes on to the raw
 *    domain (more than 512 bytes) belongs to the request in hand and is not counted again.
 * 2. Bytes are those asked for, not what the allocator rounds them up to.
 * 3. malloc and calloc count one allocation. So does realloc, with its whole new size, moved or
 *    not: the hook can't know the old size, and a block that grows has to be had anew in general.
 * 4. What fails counts nothing; frees count nothing.
 *
 * Installed once, never removed: whoever wrapped it meanwhile would call into nothing. The hook
 * keeps the context pointer of the allocator that it wraps, so a thread that calls the raw domain
 * in the very moment of installing may meet old and new fields in any mix.
 *
 * mem and obj are called with the GIL held, so one thread at a time writes their counters; raw is
 * called by any thread. All are read without a lock.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#ifdef Py_GIL_DISABLED
#error "without a GIL the counters of mem and obj would lose counts"
#endif

/* pymalloc passes on 0 bytes and more than 512; debug hooks add up to 64 to a request. */
#define MAY_BE_PASSED_ON(size) ((size) - 1 >= 448)

#define DOMAINS 3 /* in the order of PyMemAllocatorDomain: raw, mem, obj */

typedef struct {
    atomic_uint_least64_t allocations;
    atomic_uint_least64_t bytes;
} Counter;

static Counter counters[DOMAINS];
static PyMemAllocatorEx wrapped[DOMAINS];
static bool installed = false;

/* How many requests to mem or obj this thread has under way that may be passed on to raw. */
static _Thread_local unsigned passing_on = 0;

static inline void
count_shared(Counter *counter, size_t size)
{
    atomic_fetch_add_explicit(&counter->allocations, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&counter->bytes, size, memory_order_relaxed);
}

static inline void
add_under_gil(atomic_uint_least64_t *value, uint64_t growth)
{
    uint64_t now = atomic_load_explicit(value, memory_order_relaxed);
    atomic_store_explicit(value, now + growth, memory_order_relaxed);
}

static inline void
count_under_gil(Counter *counter, size_t size)
{
    add_under_gil(&counter->allocations, 1);
    add_under_gil(&counter->bytes, size);
}

static void *
raw_malloc(void *context, size_t size)
{
    void *block = wrapped[PYMEM_DOMAIN_RAW].malloc(context, size);
    if (block != NULL && !passing_on) {
        count_shared(&counters[PYMEM_DOMAIN_RAW], size);
    }
    return block;
}

static void *
raw_calloc(void *context, size_t number, size_t size)
{
    void *block = wrapped[PYMEM_DOMAIN_RAW].calloc(context, number, size);
    if (block != NULL && !passing_on) {
        count_shared(&counters[PYMEM_DOMAIN_RAW], number * size);
    }
    return block;
}

static void *
raw_realloc(void *context, void *old, size_t size)
{
    void *block = wrapped[PYMEM_DOMAIN_RAW].realloc(context, old, size);
    if (block != NULL && !passing_on) {
        count_shared(&counters[PYMEM_DOMAIN_RAW], size);
    }
    return block;
}

/* mem and obj differ in nothing but the domain. The allocators behind them refuse sizes above
 * PY_SSIZE_T_MAX, so number * size of a block that was had can't have overflowed. */
#define HOOK_UNDER_GIL(name, domain)                                                               \
    static void *name##_malloc(void *context, size_t size)                                         \
    {                                                                                              \
        void *block;                                                                               \
        if (MAY_BE_PASSED_ON(size)) {                                                              \
            passing_on++;                                                                          \
            block = wrapped[domain].malloc(context, size);                                         \
            passing_on--;                                                                          \
        }                                                                                          \
        else {                                                                                     \
            block = wrapped[domain].malloc(context, size);                                         \
        }                                                                                          \
        if (block != NULL) {                                                                       \
            count_under_gil(&counters[domain], size);                                              \
        }                                                                                          \
        return block;                                                                              \
    }                                                                                              \
    static void *name##_calloc(void *context, size_t number, size_t size)                          \
    {                                                                                              \
        passing_on++;                                                                              \
        void *block = wrapped[domain].calloc(context, number, size);                               \
        passing_on--;                                                                              \
        if (block != NULL) {                                                                       \
            count_under_gil(&counters[domain], number * size);                                     \
        }                                                                                          \
        return block;                                                                              \
    }                                                                                              \
    static void *name##_realloc(void *context, void *old, size_t size)                             \
    {                                                                                              \
        passing_on++;                                                                              \
        void *block = wrapped[domain].realloc(context, old, size);                                 \
        passing_on--;                                                                              \
        if (block != NULL) {                                                                       \
            count_under_gil(&counters[domain], size);                                              \
        }                                                                                          \
        return block;                                                                              \
    }

HOOK_UNDER_GIL(mem, PYMEM_DOMAIN_MEM)
HOOK_UNDER_GIL(obj, PYMEM_DOMAIN_OBJ)

static const PyMemAllocatorEx hooks[DOMAINS] = {
    {NULL, raw_malloc, raw_calloc, raw_realloc, NULL},
    {NULL, mem_malloc, mem_calloc, mem_realloc, NULL},
    {NULL, obj_malloc, obj_calloc, obj_realloc, NULL},
};

static PyObject *
install(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    if (!installed) {
        installed = true;
        /* All are known before the first can be called through. */
        for (int domain = 0; domain < DOMAINS; domain++) {
            PyMem_GetAllocator((PyMemAllocatorDomain)domain, &wrapped[domain]);
        }
        atomic_thread_fence(memory_order_seq_cst);
        for (int domain = 0; domain < DOMAINS; domain++) {
            PyMemAllocatorEx hook = hooks[domain];
            hook.ctx = wrapped[domain].ctx;
            hook.free = wrapped[domain].free;
            PyMem_SetAllocator((PyMemAllocatorDomain)domain, &hook);
        }
    }
    Py_RETURN_NONE;
}

static PyObject *
read_into(PyObject *module, PyObject *target)
{
    (void)module;
    Py_buffer buffer;
    uint64_t figures[2 * DOMAINS];
    if (PyObject_GetBuffer(target, &buffer, PyBUF_WRITABLE) < 0) {
        return NULL;
    }
    if (buffer.len != (Py_ssize_t)sizeof(figures)) {
        PyBuffer_Release(&buffer);
        PyErr_SetString(PyExc_ValueError, "expected a buffer of six unsigned 64-bit integers");
        return NULL;
    }
    for (int domain = 0; domain < DOMAINS; domain++) {
        figures[2 * domain] =
            atomic_load_explicit(&counters[domain].allocations, memory_order_relaxed);
        figures[2 * domain + 1] =
            atomic_load_explicit(&counters[domain].bytes, memory_order_relaxed);
    }
    memcpy(buffer.buf, figures, sizeof(figures));
    PyBuffer_Release(&buffer);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"install", install, METH_NOARGS, "Begin to count; again, it has no effect."},
    {"read_into", read_into, METH_O,
     "Write allocations and bytes of raw, mem and obj into a buffer, without allocating."},
    {NULL, NULL, 0, NULL},
};

/* One state for the whole process (-1): what it hooks is the process's, too. */
static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_allocation_hook",
    "Counts the requests to Python's allocators; see the source for the rules.", -1, methods,
    NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC
PyInit__allocation_hook(void)
{
    return PyModule_Create(&definition);
}
