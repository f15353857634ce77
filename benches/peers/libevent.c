/* libevent: a persistent event for each place, in a base as it comes. */
#include "ring.h"
#include <event2/event.h>

static struct event_base *base;

static void readable(evutil_socket_t fd, short what, void *place)
{
	(void)fd;
	(void)what;
	if (hand_on((long)(intptr_t)place))
		event_base_loopbreak(base);
}

static void watch_all(void)
{
	struct event_config *config = event_config_new();
	check(config != NULL, "event_config_new");
#ifdef PRECISE_TIMERS
	check(event_config_set_flag(config, EVENT_BASE_FLAG_PRECISE_TIMER) == 0, "event_config_set_flag");
#endif
	base = event_base_new_with_config(config);
	check(base != NULL, "event_base_new_with_config");
	event_config_free(config);
	for (long place = 0; place < count; place++) {
		struct event *event =
			event_new(base, places[place], EV_READ | EV_PERSIST, readable, (void *)(intptr_t)place);
		check(event != NULL && event_add(event, NULL) == 0, "event_add");
	}
}

static void loop(void)
{
	event_base_dispatch(base);
}
