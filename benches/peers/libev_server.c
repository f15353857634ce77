/* libev: a watcher for each connection, in the default loop. */
#include "server.h"
#include <ev.h>

static void readable(struct ev_loop *loop, ev_io *watcher, int what)
{
	(void)what;
	if (answer(watcher->fd))
		return;
	ev_io_stop(loop, watcher);
	close(watcher->fd);
	free(watcher);
}

static void acceptable(struct ev_loop *loop, ev_io *listener, int what)
{
	(void)what;
	int fd;
	while ((fd = accept_one(listener->fd)) >= 0) {
		ev_io *watcher = malloc(sizeof *watcher);
		check(watcher != NULL, "malloc");
		ev_io_init(watcher, readable, fd, EV_READ);
		ev_io_start(loop, watcher);
	}
}

int main(void)
{
	struct ev_loop *loop = ev_default_loop(EVFLAG_AUTO);
	check(loop != NULL, "ev_default_loop");
	make_nonblocking(STDIN_FILENO);
	ev_io listener;
	ev_io_init(&listener, acceptable, STDIN_FILENO, EV_READ);
	ev_io_start(loop, &listener);
	ev_run(loop, 0);
	return 1;
}
