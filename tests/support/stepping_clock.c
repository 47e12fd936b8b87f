/* A clock that steps, for the processes that load this library (LD_PRELOAD): see stepping_clock.py.
 *
 * The wall clock is off by as many seconds as the first eight bytes of a shared file say; the monotonic clock is the
 * machine's. Who waits until a moment of the wall clock waits for the machine's: its deadline is moved back.
 *
 * mongod is left alone. It computes the ends of its waits from the wall clock: set back by an hour, it can wait that hour.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* Seconds since 1970 are greater than this, and those since the machine booted are less. */
#define LONG_AFTER_BOOT 1000000000

static volatile const int64_t *shared;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("STEPPING_CLOCK_FILE");
    int is_mongod = strncmp(program_invocation_short_name, "mongod", 6) == 0;
    int file = path && !is_mongod ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *mapped = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED) shared = mapped;
    close(file);
}

static int64_t offset(void) { return shared ? *shared : 0; }

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = (int)syscall(SYS_clock_gettime, clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += offset();
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    int failed = (int)syscall(SYS_gettimeofday, now, zone);
    if (!failed && now) now->tv_sec += offset();
    return failed;
}

time_t time(time_t *into) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (into) *into = now.tv_sec;
    return now.tv_sec;
}

static const struct timespec *of_the_machine(const struct timespec *until, struct timespec *moved) {
    if (!until || until->tv_sec < LONG_AFTER_BOOT) return until;
    *moved = *until;
    moved->tv_sec -= offset();
    return moved;
}

static void *next(const char *name, const char *version) {
    void *found = dlvsym(RTLD_NEXT, name, version);
    return found ? found : dlsym(RTLD_NEXT, name);
}

int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict until) {
    static int (*wait)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
    struct timespec moved;
    if (!wait) wait = next("pthread_cond_timedwait", "GLIBC_2.3.2");
    return wait(condition, mutex, of_the_machine(until, &moved));
}

int pthread_cond_clockwait(pthread_cond_t *condition, pthread_mutex_t *mutex, clockid_t clock,
                           const struct timespec *until) {
    static int (*wait)(pthread_cond_t *, pthread_mutex_t *, clockid_t, const struct timespec *);
    struct timespec moved;
    if (!wait) wait = next("pthread_cond_clockwait", "GLIBC_2.34");
    return wait(condition, mutex, clock, of_the_machine(until, &moved));
}

int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict until) {
    static int (*wait)(sem_t *, const struct timespec *);
    struct timespec moved;
    if (!wait) wait = next("sem_timedwait", "GLIBC_2.34");
    return wait(semaphore, of_the_machine(until, &moved));
}

int sem_clockwait(sem_t *restrict semaphore, clockid_t clock, const struct timespec *restrict until) {
    static int (*wait)(sem_t *, clockid_t, const struct timespec *);
    struct timespec moved;
    if (!wait) wait = next("sem_clockwait", "GLIBC_2.34");
    return wait(semaphore, clock, of_the_machine(until, &moved));
}
