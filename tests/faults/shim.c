/* A layer between SQLite and libc that makes calls on the files of one directory fail, hang, or be
 * recorded. Preloaded into a process (LD_PRELOAD), so that neither SQLite nor the journal can tell
 * it from a disk.
 *
 * It is told what to do through a file, named by FAULTS_CONTROL, that holds `struct control` and is
 * mapped by both sides: tests/faults/shim.py has the other side, and the meaning of each field.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OPEN = 1, WRITE = 2, SYNC = 4, TRUNCATE = 8, UNLINK = 16, READ = 32 };

struct control {
    int64_t armed, kinds, nth, times, error, torn, hang, recording;
    int64_t calls, failed, waiting, unseen;
    char directory[1024];
    char trace[1024];
};

struct record {
    char kind;
    char unused[3];
    uint32_t name_length;
    int64_t offset;
    int64_t length;
};

enum { FILES = 4096, NAME = 256 };

static struct control nothing;
static volatile struct control *control = &nothing;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char names[FILES][NAME]; /* "/NAME" in the directory; "/" is the directory itself */

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("FAULTS_CONTROL");
    int file = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0) : -1;
    if (file < 0)
        return;
    void *mapped = (void *)syscall(SYS_mmap, NULL, sizeof *control, PROT_READ | PROT_WRITE,
                                   MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED)
        control = mapped;
    syscall(SYS_close, file);
}

/* The name of a path in the directory, or NULL. */
static const char *name_of(const char *path) {
    const char *directory = (const char *)control->directory;
    size_t length = strlen(directory);
    if (!control->armed || !length || strncmp(path, directory, length))
        return NULL;
    if (!path[length])
        return "/";
    return path[length] == '/' && strlen(path + length) < NAME ? path + length : NULL;
}

static const char *name_at(int file) {
    return control->armed && file >= 0 && file < FILES && names[file][0] ? names[file] : NULL;
}

/* Whether a call on the directory is to fail; waits before it says so, if told to. */
static int fails(int64_t kind) {
    if (control->hang & kind) {
        __atomic_add_fetch(&control->waiting, 1, __ATOMIC_SEQ_CST);
        while (control->hang & kind)
            usleep(500);
        __atomic_sub_fetch(&control->waiting, 1, __ATOMIC_SEQ_CST);
    }
    if (!(control->kinds & kind))
        return 0;
    int64_t call = __atomic_add_fetch(&control->calls, 1, __ATOMIC_SEQ_CST);
    int64_t first = control->nth, times = control->times;
    if (!first || call < first || (times >= 0 && call >= first + times))
        return 0;
    __atomic_add_fetch(&control->failed, 1, __ATOMIC_SEQ_CST);
    errno = (int)control->error;
    return 1;
}

/* The index of the WAL, which is shared memory in a file, and made anew after a crash. */
static int is_memory(const char *name) {
    size_t length = strlen(name);
    return length > 4 && !strcmp(name + length - 4, "-shm");
}

static void note(char kind, const char *name, int64_t offset, const void *data, int64_t length) {
    if (!control->recording || is_memory(name))
        return;
    int saved = errno;
    struct record head = {kind, {0}, (uint32_t)strlen(name), offset, length};
    struct iovec parts[] = {{&head, sizeof head},
                            {(void *)name, head.name_length},
                            {(void *)data, data ? (size_t)length : 0}};
    pthread_mutex_lock(&lock);
    /* Anew each time: the next recording has another name. */
    int trace = (int)syscall(SYS_openat, AT_FDCWD, control->trace,
                             O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (syscall(SYS_writev, trace, parts, 3) < 0)
        control->unseen++;
    syscall(SYS_close, trace);
    pthread_mutex_unlock(&lock);
    errno = saved;
}

/* The recording is complete only if none of these is used on the directory. */
static void unseen(int file) {
    const char *name = name_at(file);
    if (name && !is_memory(name))
        __atomic_add_fetch(&control->unseen, 1, __ATOMIC_SEQ_CST);
}

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) \
        real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

static int opened(int at, const char *path, int flags, mode_t mode) {
    const char *name = name_of(path);
    struct stat before;
    int made = 0;
    if (name) {
        if (fails(OPEN))
            return -1;
        made = (flags & O_CREAT) && syscall(SYS_newfstatat, AT_FDCWD, path, &before, 0) < 0;
    }
    int file = (int)syscall(SYS_openat, at, path, flags, mode);
    if (file >= 0 && file < FILES) {
        names[file][0] = 0;
        if (name) {
            strcpy(names[file], name);
            if (made)
                note('C', name, 0, NULL, 0);
            if (flags & O_TRUNC)
                note('T', name, 0, NULL, 0);
        }
    }
    return file;
}

#define MODE(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | __O_TMPFILE)) { \
        va_list rest; \
        va_start(rest, flags); \
        mode = va_arg(rest, mode_t); \
        va_end(rest); \
    }

int open(const char *path, int flags, ...) {
    MODE(flags);
    return opened(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    MODE(flags);
    return opened(AT_FDCWD, path, flags, mode);
}

int openat(int at, const char *path, int flags, ...) {
    MODE(flags);
    return opened(at, path, flags, mode);
}

int close(int file) {
    if (file >= 0 && file < FILES)
        names[file][0] = 0;
    return (int)syscall(SYS_close, file);
}

static ssize_t written(int file, const void *data, size_t size, off_t offset, int positioned) {
    const char *name = name_at(file);
    int saved = 0;
    if (name && fails(WRITE)) {
        saved = errno;
        if (saved && !control->torn) /* or else a half is written: short, or torn */
            return -1;
        size = size > 1 ? size / 2 : size;
    }
    if (name && !positioned) {
        int flags = (int)syscall(SYS_fcntl, file, F_GETFL);
        offset = lseek(file, 0, flags & O_APPEND ? SEEK_END : SEEK_CUR);
    }
    ssize_t done = positioned ? syscall(SYS_pwrite64, file, data, size, offset)
                              : syscall(SYS_write, file, data, size);
    if (name && done > 0)
        note('W', name, offset, data, done);
    if (saved) {
        errno = saved;
        return -1;
    }
    return done;
}

ssize_t write(int file, const void *data, size_t size) { return written(file, data, size, 0, 0); }

ssize_t pwrite(int file, const void *data, size_t size, off_t offset) {
    return written(file, data, size, offset, 1);
}

ssize_t pwrite64(int file, const void *data, size_t size, off_t offset) {
    return written(file, data, size, offset, 1);
}

static ssize_t taken(int file, void *data, size_t size, off_t offset, int positioned) {
    if (name_at(file) && fails(READ)) {
        if (errno)
            return -1;
        size = size > 1 ? size / 2 : size;
    }
    return positioned ? syscall(SYS_pread64, file, data, size, offset)
                      : syscall(SYS_read, file, data, size);
}

ssize_t read(int file, void *data, size_t size) { return taken(file, data, size, 0, 0); }

ssize_t pread(int file, void *data, size_t size, off_t offset) {
    return taken(file, data, size, offset, 1);
}

ssize_t pread64(int file, void *data, size_t size, off_t offset) {
    return taken(file, data, size, offset, 1);
}

static int synced(int file, int number) {
    const char *name = name_at(file);
    if (name && fails(SYNC)) {
        note('F', name, 0, NULL, 0);
        return -1;
    }
    int failed = (int)syscall(number, file);
    if (name && !failed)
        note('S', name, 0, NULL, 0);
    return failed;
}

int fsync(int file) { return synced(file, SYS_fsync); }

int fdatasync(int file) { return synced(file, SYS_fdatasync); }

static int truncated(int file, off_t size) {
    const char *name = name_at(file);
    if (name && fails(TRUNCATE))
        return -1;
    int failed = (int)syscall(SYS_ftruncate, file, size);
    if (name && !failed)
        note('T', name, size, NULL, 0);
    return failed;
}

int ftruncate(int file, off_t size) { return truncated(file, size); }

int ftruncate64(int file, off_t size) { return truncated(file, size); }

int unlink(const char *path) {
    const char *name = name_of(path);
    if (name && fails(UNLINK))
        return -1;
    int failed = (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    if (name && !failed)
        note('U', name, 0, NULL, 0);
    return failed;
}

int rename(const char *from, const char *to) {
    const char *name = name_of(from), *target = name_of(to);
    if (name && fails(UNLINK))
        return -1;
    int failed = (int)syscall(SYS_renameat, AT_FDCWD, from, AT_FDCWD, to);
    if (name && target && !failed)
        note('R', name, 0, target, (int64_t)strlen(target));
    return failed;
}

void *mmap(void *at, size_t size, int protection, int flags, int file, off_t offset) {
    if ((protection & PROT_WRITE) && (flags & MAP_SHARED))
        unseen(file);
    return (void *)syscall(SYS_mmap, at, size, protection, flags, file, offset);
}

void *mmap64(void *at, size_t size, int protection, int flags, int file, off_t offset) {
    return mmap(at, size, protection, flags, file, offset);
}

ssize_t writev(int file, const struct iovec *parts, int count) {
    unseen(file);
    return syscall(SYS_writev, file, parts, count);
}

int posix_fallocate(int file, off_t offset, off_t size) {
    REAL(int, "posix_fallocate", int, off_t, off_t);
    unseen(file);
    return real(file, offset, size);
}

int fallocate(int file, int mode, off_t offset, off_t size) {
    REAL(int, "fallocate", int, int, off_t, off_t);
    unseen(file);
    return real(file, mode, offset, size);
}
