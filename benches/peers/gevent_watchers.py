"""gevent: the same as libev_watchers.c, on the loop of its hub. The argument is the number of rounds."""

import os
import socket
import sys
import time

import gevent

rounds = int(sys.argv[1])
loop = gevent.get_hub().loop


def report(name, begin):
    print(f"{name}: {(time.perf_counter_ns() - begin) / rounds:.1f} ns")


timer = loop.timer(30)
begin = time.perf_counter_ns()
for _ in range(rounds):
    timer.start(print)
    timer.stop()
report("start and stop a timer", begin)

near, far = (end.detach() for end in socket.socketpair())
watchers = [loop.io(end, 1) for end in (near, far)]
left = rounds
main = gevent.getcurrent()


def hand_back(fd):
    os.write(fd, os.read(fd, 1))


def ask():
    global left
    hand_back(near)
    left -= 1
    if left == 0:
        main.switch()


watchers[0].start(ask)
watchers[1].start(hand_back, far)
begin = time.perf_counter_ns()
os.write(near, b"x")
gevent.get_hub().switch()
report("a byte there and back", begin)
for watcher in watchers:
    watcher.stop()
    watcher.close()
