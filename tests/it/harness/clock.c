/* A wall clock that can be set, for one process alone: preloaded, it adds the seconds that stand in the file $SET_CLOCK (eight
 * octets) to what the system says of CLOCK_REALTIME. Every other clock is left as it is. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *seconds;

__attribute__((constructor)) static void begin(void)
{
	const char *name = getenv("SET_CLOCK");
	int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
	void *found = file < 0 ? MAP_FAILED : mmap(NULL, sizeof *seconds, PROT_READ, MAP_SHARED, file, 0);

	if (found != MAP_FAILED)
		seconds = found;
	if (file >= 0)
		close(file);
}

int clock_gettime(clockid_t which, struct timespec *now)
{
	int result = (int)syscall(SYS_clock_gettime, which, now);

	if (result == 0 && seconds && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE))
		now->tv_sec += *seconds;
	return result;
}
