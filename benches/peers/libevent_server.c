/* libevent: a persistent event for each connection, in a base with default settings. */
#include "server.h"
#include <event2/event.h>

static struct event_base *base;

static void readable(evutil_socket_t fd, short what, void *event)
{
	(void)what;
	if (answer(fd))
		return;
	event_free(event);
	close(fd);
}

static void acceptable(evutil_socket_t listener, short what, void *unused)
{
	(void)what;
	(void)unused;
	int fd;
	while ((fd = accept_one(listener)) >= 0) {
		struct event *event = event_new(base, fd, EV_READ | EV_PERSIST, readable, event_self_cbarg());
		check(event != NULL && event_add(event, NULL) == 0, "event_add");
	}
}

int main(void)
{
	base = event_base_new();
	check(base != NULL, "event_base_new");
	make_nonblocking(STDIN_FILENO);
	struct event *listener = event_new(base, STDIN_FILENO, EV_READ | EV_PERSIST, acceptable, NULL);
	check(listener != NULL && event_add(listener, NULL) == 0, "event_add");
	event_base_dispatch(base);
	return 1;
}
