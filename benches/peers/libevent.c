/*
 * libevent: an event for each place, in a base with default settings. The events persist or, with ONE_WAIT, are added
 * anew for each wait. With PRECISE_TIMERS the base uses precise timers.
 */
#include "ring.h"
#include <event2/event.h>

#ifdef ONE_WAIT
#define LASTING 0
#else
#define LASTING EV_PERSIST
#endif

static struct event_base *base;
static struct event **events;

static void readable(evutil_socket_t fd, short what, void *place)
{
	(void)fd;
	(void)what;
	if (hand_on((long)(intptr_t)place))
		event_base_loopbreak(base);
	else if (!LASTING)
		check(event_add(events[(long)(intptr_t)place], NULL) == 0, "event_add");
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
	events = calloc(count, sizeof *events);
	check(events != NULL, "calloc");
	for (long place = 0; place < count; place++) {
		events[place] = event_new(base, places[place], EV_READ | LASTING, readable, (void *)(intptr_t)place);
		check(events[place] != NULL && event_add(events[place], NULL) == 0, "event_add");
	}
}

static void loop(void)
{
	event_base_dispatch(base);
}
