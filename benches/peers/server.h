/*
 * The shared part of the servers in C: each echoes what the clients of the listener send, which is its standard input.
 * The work is that of src/servers.rs.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static void check(int holds, const char *what)
{
	if (!holds) {
		perror(what);
		exit(1);
	}
}

static void make_nonblocking(int fd)
{
	check(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) == 0, "fcntl");
}

/* Returns a connection, or -1 if none waits. */
static int accept_one(int listener)
{
	int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	check(fd >= 0 || errno == EAGAIN, "accept4");
	return fd;
}

/* Answers a request. Returns whether the client is still there. */
static int answer(int fd)
{
	char buffer[1024];
	ssize_t count = read(fd, buffer, sizeof buffer);
	return count > 0 && write(fd, buffer, count) == count;
}
