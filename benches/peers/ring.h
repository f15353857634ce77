/*
 * The shared part of the peers in C: a ring of descriptors with messages, and the measurement of its processor time. The
 * work is that of src/ring.rs: each place is an eventfd, which hands out one message at a time, or a pipe.
 *
 * The arguments of a peer are the number of places, the number of messages in the ring, the number of messages to pass
 * on, the number of places that a message moves at a time, and `eventfd` or `pipe`. A peer prints its processor time in
 * nanoseconds.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

/* The descriptors to read from, and those to write to. */
static int *places, *writers;
static size_t bytes;
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
	check(write(writers[place], &one, bytes) == (ssize_t)bytes, "write");
}

/* Passes the message of a place on. Returns whether it was the last one. */
static int hand_on(long place)
{
	uint64_t one;
	check(read(places[place], &one, bytes) == (ssize_t)bytes, "read");
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
	check(argc == 6, "usage: places busy messages step eventfd|pipe");
	count = atol(argv[1]);
	long busy = atol(argv[2]);
	left = atol(argv[3]);
	step = atol(argv[4]);
	int pipes = strcmp(argv[5], "pipe") == 0;
	bytes = pipes ? 1 : sizeof(uint64_t);
	places = calloc(count, sizeof *places);
	writers = calloc(count, sizeof *writers);
	check(places != NULL && writers != NULL, "calloc");
	for (long place = 0; place < count; place++) {
		if (pipes) {
			int ends[2];
			check(pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0, "pipe2");
			places[place] = ends[0];
			writers[place] = ends[1];
		} else {
			places[place] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE);
			check(places[place] >= 0, "eventfd");
			writers[place] = places[place];
		}
	}
	watch_all();
	for (long place = 0; place < busy; place++)
		give(place * (count / busy));
	int64_t start = processor_time();
	loop();
	printf("%lld\n", (long long)(processor_time() - start));
	return 0;
}
