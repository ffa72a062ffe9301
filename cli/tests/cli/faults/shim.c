/* Loaded into the command (LD_PRELOAD), has one of its calls on files below a folder fail, as ESOLM_FAULT says:
 *
 *   CALL HOW N LAST FOLDER MARK
 *
 * Calls number N to LAST of CALL (open, read, write, fsync, close, mmap, memory, chmod, rename, link, thread) get the error number
 * HOW; or they do one byte (HOW 0), or read nothing (HOW -1). MARK is a file that is made when it happens. "link" is of the
 * system's calls, as the command makes it without the C library. With ESOLM_NO_UNNAMED files cannot be unnamed, as on
 * file systems that do not have that. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { SHORT = 0, END = -1 };

static char call[16], folder[512], mark[512];
static int how;
static unsigned first, last;
static atomic_uint count;

static void filter_system_calls(struct sock_filter *code, unsigned short length)
{
    struct sock_fprog program = {length, code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        _exit(99);
}

/* Has system call `number`, whose flags are argument `flags`, make no unnamed files. */
static void refuse_unnamed(unsigned number, size_t flags)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (unsigned)offsetof(struct seccomp_data, args[flags])),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, O_TMPFILE & ~O_DIRECTORY, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EOPNOTSUPP),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    filter_system_calls(code, sizeof code / sizeof *code);
}

__attribute__((constructor)) static void start(void)
{
    const char *given = getenv("ESOLM_FAULT");
    if (given && sscanf(given, "%15s %d %u %u %511s %511s", call, &how, &first, &last, folder, mark) != 6)
        _exit(99);
    if (getenv("ESOLM_NO_UNNAMED")) {
        refuse_unnamed(SYS_openat, 2);
#ifdef SYS_open
        refuse_unnamed(SYS_open, 1);
#endif
    }
    if (!strcmp(call, "link")) {
        struct sock_filter code[] = {
            BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_linkat, 0, 1),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)how),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        };
        filter_system_calls(code, sizeof code / sizeof *code);
    }
}

/* Whether this call is to fail: `name` on the file at `path`. */
static int fails_at(const char *name, const char *path)
{
    if (strcmp(name, call) || strncmp(path, folder, strlen(folder)))
        return 0;
    unsigned number = atomic_fetch_add(&count, 1) + 1;
    if (number < first || number > last)
        return 0;
    int made = (int)syscall(SYS_openat, AT_FDCWD, mark, O_WRONLY | O_CREAT, 0600);
    syscall(SYS_close, made);
    errno = how;
    return 1;
}

/* As above, on an open file. */
static int fails(const char *name, int file)
{
    char link[64], path[512];
    if (strcmp(name, call))
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    long length = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
    if (length <= 0)
        return 0;
    path[length] = 0;
    return fails_at(name, path);
}

int open64(const char *path, int flags, ...)
{
    va_list more;
    va_start(more, flags);
    int mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, int) : 0;
    va_end(more);
    return fails_at("open", path) ? -1 : (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

/* How many of `size` bytes a call does: all, half of them, or none; -1: an error. */
static ssize_t allowed(const char *name, int file, size_t size)
{
    if (!fails(name, file))
        return (ssize_t)size;
    return how > 0 ? -1 : how == SHORT ? (ssize_t)(size - size / 2) : 0;
}

ssize_t read(int file, void *to, size_t size)
{
    ssize_t some = allowed("read", file, size);
    return some <= 0 && size > 0 ? some : syscall(SYS_read, file, to, (size_t)some);
}

ssize_t pread64(int file, void *to, size_t size, off64_t at)
{
    ssize_t some = allowed("read", file, size);
    return some <= 0 && size > 0 ? some : syscall(SYS_pread64, file, to, (size_t)some, at);
}

ssize_t readv(int file, const struct iovec *parts, int n)
{
    ssize_t some = allowed("read", file, 2);
    if (some == 1)
        return n > 0 && parts[0].iov_len > 0 ? syscall(SYS_read, file, parts[0].iov_base, (size_t)1) : 0;
    return some <= 0 ? some : syscall(SYS_readv, file, parts, n);
}

ssize_t write(int file, const void *from, size_t size)
{
    ssize_t some = allowed("write", file, size);
    return some <= 0 && size > 0 ? some : syscall(SYS_write, file, from, (size_t)some);
}

ssize_t writev(int file, const struct iovec *parts, int n)
{
    ssize_t some = allowed("write", file, 2);
    if (some == 1)
        return n > 0 && parts[0].iov_len > 0 ? syscall(SYS_write, file, parts[0].iov_base, (size_t)1) : 0;
    return some <= 0 ? some : syscall(SYS_writev, file, parts, n);
}

int fsync(int file)
{
    return fails("fsync", file) ? -1 : (int)syscall(SYS_fsync, file);
}

/* As Linux does it: the file is closed all the same. */
int close(int file)
{
    int failed = fails("close", file), number = errno;
    int status = (int)syscall(SYS_close, file);
    if (!failed)
        return status;
    errno = number;
    return -1;
}

void *mmap64(void *at, size_t size, int access, int flags, int file, off64_t offset)
{
    /* Those without a file are memory: counted as if of the folder. Rust's stacks for signals are none of the command's. */
    if (file >= 0 ? fails("mmap", file) : !(flags & MAP_STACK) && fails_at("memory", folder))
        return MAP_FAILED;
    return (void *)syscall(SYS_mmap, at, size, access, flags, file, offset);
}

void *mmap(void *at, size_t size, int access, int flags, int file, off_t offset)
{
    return mmap64(at, size, access, flags, file, offset);
}

int fchmod(int file, mode_t mode)
{
    return fails("chmod", file) ? -1 : (int)syscall(SYS_fchmod, file, mode);
}

int rename(const char *from, const char *to)
{
    return fails_at("rename", to) ? -1 : (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *data)
{
    int (*create)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    if (fails_at("thread", folder))
        return how;
    *(void **)&create = dlsym(RTLD_NEXT, "pthread_create");
    return create(thread, attributes, run, data);
}
