/*
 * The shared part of the peers in C: a ring of descriptors with messages, and the measurement of its processor time. The
 * work is that of src/ring.rs: an eventfd for each place, which hands out one message at a time.
 *
 * The arguments of a peer are the number of descriptors, the number of messages in the ring, the number of messages to
 * pass on, and the number of places that a message moves at a time. A peer prints its processor time in nanoseconds.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

static int *places;
static long count, left, step;

static void check(int holds, const char *what)
{
	if (!holds) {
		perror(what);
		exit(1);
	}
}

static void give(long place)
{
	uint64_t one = 1;
	check(write(places[place], &one, sizeof one) == sizeof one, "write");
}

/* Passes the message of a place on. Returns whether it was the last one. */
static int hand_on(long place)
{
	uint64_t one;
	check(read(places[place], &one, sizeof one) == sizeof one, "read");
	if (--left == 0)
		return 1;
	give((place + step) % count);
	return 0;
}

static int64_t processor_time(void)
{
	struct timespec time;
	check(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time) == 0, "clock_gettime");
	return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

/* The part of each peer: watches each place, and calls hand_on for readable places until hand_on returns 1. */
static void watch_all(void);
static void loop(void);

int main(int argc, char **argv)
{
	check(argc == 5, "usage: descriptors busy messages step");
	count = atol(argv[1]);
	long busy = atol(argv[2]);
	left = atol(argv[3]);
	step = atol(argv[4]);
	places = calloc(count, sizeof *places);
	check(places != NULL, "calloc");
	for (long place = 0; place < count; place++) {
		places[place] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE);
		check(places[place] >= 0, "eventfd");
	}
	watch_all();
	for (long place = 0; place < busy; place++)
		give(place * (count / busy));
	int64_t start = processor_time();
	loop();
	printf("%lld\n", (long long)(processor_time() - start));
	return 0;
}
