/*
 * libev: a timer that is started and stopped beside nothing else, and a byte that two watchers send each other over a
 * pair of sockets. The argument is the number of rounds. Prints the nanoseconds of a round of each.
 */
#include <ev.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static long left;

static double now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1e9 + time.tv_nsec;
}

static void check(int holds, const char *what)
{
	if (!holds) {
		perror(what);
		exit(1);
	}
}

static void expired(struct ev_loop *loop, ev_timer *watcher, int what)
{
	(void)loop, (void)watcher, (void)what;
	abort();
}

static void hand_back(int fd)
{
	char byte;
	check(read(fd, &byte, 1) == 1, "read");
	check(write(fd, &byte, 1) == 1, "write");
}

static void echo(struct ev_loop *loop, ev_io *watcher, int what)
{
	(void)loop, (void)what;
	hand_back(watcher->fd);
}

static void ask(struct ev_loop *loop, ev_io *watcher, int what)
{
	(void)what;
	hand_back(watcher->fd);
	if (--left == 0)
		ev_break(loop, EVBREAK_ALL);
}

int main(int argc, char **argv)
{
	long rounds = argc > 1 ? atol(argv[1]) : 0;
	check(rounds > 0, "expected the number of rounds");
	struct ev_loop *loop = ev_default_loop(EVFLAG_AUTO);
	check(loop != NULL, "ev_default_loop");

	ev_timer timer;
	double begin = now();
	for (long round = 0; round < rounds; round++) {
		ev_timer_init(&timer, expired, 30., 0.);
		ev_timer_start(loop, &timer);
		ev_timer_stop(loop, &timer);
	}
	printf("start and stop a timer: %.1f ns\n", (now() - begin) / rounds);

	int ends[2];
	check(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0, "socketpair");
	ev_io watchers[2];
	ev_io_init(&watchers[0], ask, ends[0], EV_READ);
	ev_io_init(&watchers[1], echo, ends[1], EV_READ);
	ev_io_start(loop, &watchers[0]);
	ev_io_start(loop, &watchers[1]);
	left = rounds;
	begin = now();
	check(write(ends[0], "x", 1) == 1, "write");
	ev_run(loop, 0);
	printf("a byte there and back: %.1f ns\n", (now() - begin) / rounds);
	return 0;
}
