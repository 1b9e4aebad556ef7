/* Loaded before the C library into a server under test: syncs that fail and a clock that is wrong,
 * switched by whoever writes the file that CHAOS_SWITCHES names. Allocates nothing: an allocator may
 * ask for the time before anything else runs. See switches.rs. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct switches {
    volatile int64_t syncs_fail;
    volatile int64_t clock_offset_s;
};

static struct switches *switches;
static int (*real_clock_gettime)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void) {
    real_clock_gettime = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    const char *path = getenv("CHAOS_SWITCHES");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *at = mmap(NULL, sizeof(struct switches), PROT_READ, MAP_SHARED, fd, 0);
    if (at != MAP_FAILED)
        switches = at;
    close(fd);
}

static int sync_fails(void) {
    if (switches && switches->syncs_fail) {
        errno = EIO;
        return 1;
    }
    return 0;
}

int fsync(int fd) {
    return sync_fails() ? -1 : (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd) {
    return sync_fails() ? -1 : (int)syscall(SYS_fdatasync, fd);
}

int clock_gettime(clockid_t id, struct timespec *at) {
    int result = real_clock_gettime ? real_clock_gettime(id, at)
                                    : (int)syscall(SYS_clock_gettime, id, at);
    if (result == 0 && switches && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
        at->tv_sec += switches->clock_offset_s;
    return result;
}
