"""Green threads of greenhub in gdb, of a live process or of a core file.

    (gdb) source greenhub-gdb.py
    (gdb) info greenthreads
    (gdb) greenthread 7 bt
    (gdb) greenthread 2.7 bt
    (gdb) greenthread apply all bt

A green thread has the number that the reports of greenhub show, on the selected OS thread. `2.7` is green thread 7 of
gdb's thread 2. `greenthread N COMMAND` runs a command of gdb as if the green thread had stopped there. No register of
the process is changed: an unwinder continues the innermost frame of the OS thread in the frames of the green thread,
and a frame filter hides that one frame.

The script reads a table that hub-core exports, so it needs no debug information but the symbols. It knows Linux on
x86-64 and 64-bit ARM. A core file of the kernel has all stacks. `generate-core-file` of gdb leaves out stacks beside
guards, unless the program runs with GREENHUB_GUARD=mprotect.
"""

import struct

import gdb
import gdb.unwinder

SYMBOL = "GREENHUB_GDB"
VERSION = 1
TEXT = 48

# The words that a switch saves at the context: for each register its index, and their number.
SAVED = {
    "x86-64": ({"r12": 1, "r13": 2, "r14": 3, "r15": 4, "rbx": 5, "rbp": 6, "rip": 7}, 8, "rsp", "rip"),
    "aarch64": (
        {**{f"x{19 + index}": 8 + index for index in range(10)}, "x29": 18, "x30": 19, "pc": 20},
        22,
        "sp",
        "pc",
    ),
}


# The longest name that is shown, in bytes.
LONGEST_NAME = 4096
# The most OS threads, and the most chunks of greenlets of each. A damaged program may have a list without an end.
MOST_THREADS = 65536
MOST_CHUNKS = 1 << 20


def read(address, length):
    try:
        return bytes(gdb.selected_inferior().read_memory(address, length))
    except (gdb.MemoryError, OverflowError, ValueError) as error:
        raise gdb.GdbError(f"the memory at {address:#x} cannot be read ({error})")


def number(address, form):
    return struct.unpack("=" + form, read(address, struct.calcsize("=" + form)))[0]


def pointer(address):
    return number(address, "Q")


def address_of(symbol):
    language = gdb.parameter("language")
    # The user may have stopped in a frame of Rust, in whose language there is no `unsigned`.
    gdb.execute("set language c", to_string=True)
    try:
        return int(gdb.parse_and_eval(f"(unsigned long)&{symbol}"))
    except gdb.error as error:
        raise gdb.GdbError(f"no greenhub here: the symbol {symbol} is missing ({error})")
    finally:
        gdb.execute(f"set language {language}", to_string=True)


class Table:
    """The table that hub-core exports, in the order of `greenlet/debugger.rs`."""

    def __init__(self):
        address = address_of(SYMBOL)
        magic, version, self.threads = struct.unpack("=12sIQ", read(address, 24))
        if magic != b"greenhub-gdb" or version != VERSION:
            raise gdb.GdbError(f"this script is for version {VERSION} of greenhub's table, and finds {version}")
        numbers = struct.unpack("=20I", read(address + 24, 80))
        self.thread_next, self.thread_id, self.thread_chunks = numbers[0:3]
        self.chunks_first, self.chunks_len, self.blocks, self.block_size = numbers[3:7]
        self.context, self.stack, self.task, self.number, self.state, self.reason, self.kind = numbers[7:14]
        self.top, self.bottom = numbers[14:16]
        self.spawned_at, self.extra, self.name, self.name_len = numbers[16:20]
        texts = address + 24 + 80
        self.states = self.texts(texts, 10)
        self.kinds = self.texts(texts + 10 * TEXT, 4)
        # The last table: reasons that a newer library adds come at its end.
        self.reasons = self.texts(texts + 14 * TEXT, 28)

        # An offset outside of a block would make an index that no block has.
        in_block = (self.context, self.stack, self.task, self.number, self.state, self.reason, self.kind)
        if not 0 < self.blocks <= 65536 or not max(in_block) < self.block_size <= 65536:
            raise gdb.GdbError("greenhub's table is damaged")

    @staticmethod
    def texts(address, count):
        text = read(address, count * TEXT)
        return [escaped(text[at : at + TEXT].rstrip(b"\0")) for at in range(0, count * TEXT, TEXT)]


class Greenlet:
    """A greenlet that has not ended."""

    def __init__(self, table, thread, address):
        self.thread = thread
        self.context = pointer(address + table.context)
        self.stack = pointer(address + table.stack)
        self.number = number(address + table.number, "I")
        self.state = text_of(table.states, number(address + table.state, "B"), "in an unknown state")
        self.kind = text_of(table.kinds, number(address + table.kind, "B"), "unknown greenlet")
        if self.state == "parked":
            self.state = text_of(table.reasons, number(address + table.reason, "B"), "waiting")
        task = pointer(address + table.task)
        self.name = self.name_of(table, task) if task else None
        self.origin = location(pointer(task + table.spawned_at)) if task else None

    @staticmethod
    def name_of(table, task):
        extra = pointer(task + table.extra)
        if not extra or not pointer(extra + table.name):
            return None
        length = pointer(extra + table.name_len)
        name = escaped(read(pointer(extra + table.name), min(length, LONGEST_NAME)))
        return name if length <= LONGEST_NAME else name + "..."

    def is_suspended(self):
        return self.context != 0 and self.state not in ("running", "about to begin", "begins later")

    def __str__(self):
        name = f' "{self.name}"' if self.name else ""
        origin = f" (spawned at {self.origin})" if self.origin else ""
        return f"{self.kind}{name}{origin}: {self.state}"


def text_of(texts, index, unknown):
    """Returns the text with that index. A damaged program may have any index."""
    return texts[index] if index < len(texts) and texts[index] else unknown


def escaped(text):
    """Decodes bytes of the program. Escapes quotes, and characters that a terminal would not print."""

    def escape(char):
        if char in '"\\':
            return "\\" + char
        return char if char.isprintable() else char.encode("unicode_escape").decode()

    return "".join(escape(char) for char in text.decode(errors="replace"))


def location(address):
    """Returns the text of a location of std, or None if the layout, which is std's own, holds no path there."""
    try:
        start, length, line, column = struct.unpack("=QQII", read(address, 24))
        if 0 < length < 4096:
            path = read(start, length).decode()
            if path.isprintable() and path.endswith(".rs"):
                return f"{path}:{line}:{column}"
    except (gdb.GdbError, UnicodeDecodeError):
        pass
    return None


def os_threads(table):
    """Yields the number of the system and the chunks of each OS thread that has greenlets."""
    entry = pointer(table.threads)
    for _ in range(MOST_THREADS):
        if not entry:
            break
        thread = number(entry + table.thread_id, "i")
        chunks = pointer(entry + table.thread_chunks)
        if thread and chunks:
            yield thread, chunks
        entry = pointer(entry + table.thread_next)


def threads_by_id():
    return {thread.ptid[1]: thread for thread in gdb.selected_inferior().threads()}


def missing_threads(table):
    """Returns the number of OS threads of the list that this process does not have.

    A forked child has the list of its parent until it first calls its hub.
    """
    present = threads_by_id()
    return sum(id not in present for id, _ in os_threads(table))


def greenlets(table):
    """Yields all greenlets, by OS thread."""
    by_id = threads_by_id()
    for id, chunks in sorted(os_threads(table), key=lambda entry: entry[0]):
        thread = by_id.get(id)
        if thread is None:
            continue
        first = pointer(chunks + table.chunks_first)
        for chunk in range(min(pointer(chunks + table.chunks_len), MOST_CHUNKS)):
            block = pointer(first + 8 * chunk)
            # One read for all states, because a read of gdb costs more than the bytes.
            states = read(block, table.blocks * table.block_size)[table.state :: table.block_size]
            for index, state in enumerate(states):
                # The state of a free block has no text.
                if state >= len(table.states) or table.states[state]:
                    yield Greenlet(table, thread, block + index * table.block_size)


class Unwinder(gdb.unwinder.Unwinder):
    """Continues the innermost frame of an OS thread in a greenlet, while a command runs."""

    def __init__(self):
        super().__init__("greenhub")
        self.greenlet = None

    def __call__(self, pending):
        greenlet = self.greenlet
        if greenlet is None or pending.level() != 0 or gdb.selected_thread().num != greenlet.thread.num:
            return None
        saved, words, sp, pc = SAVED[architecture(pending.architecture())]
        values = struct.unpack(f"={words}Q", read(greenlet.context, 8 * words))
        # The frames of the greenlet are outside of a frame at its context, as gdb requires of each caller.
        innermost = gdb.Value(greenlet.context).cast(pending.read_register(sp).type)
        info = pending.create_unwind_info(FrameId(innermost, pending.read_register(pc)))
        registers = {register: values[index] for register, index in saved.items()}
        registers[sp] = greenlet.context + 8 * words
        for register, value in registers.items():
            info.add_saved_register(register, gdb.Value(value).cast(pending.read_register(register).type))
        return info


class FrameId:
    def __init__(self, sp, pc):
        self.sp = sp
        self.pc = pc


class Filter:
    """Hides the frame at which an OS thread really is, while a command runs in one of its greenlets."""

    name = "greenhub"
    priority = 1000
    enabled = True

    def filter(self, frames):
        if unwinder.greenlet is not None:
            next(frames, None)
        return frames


def architecture(arch):
    name = arch.name()
    if name.startswith("i386:x86-64"):
        return "x86-64"
    if name.startswith("aarch64"):
        return "aarch64"
    raise gdb.GdbError(f"the saved registers of {name} are not known")


unwinder = Unwinder()
gdb.unwinder.register_unwinder(None, unwinder, replace=True)
gdb.frame_filters["greenhub"] = Filter()


def run_in(greenlet, command):
    """Runs a command of gdb in the frames of a greenlet."""
    former = gdb.selected_thread()
    if former is None:
        raise gdb.GdbError("no thread is selected")
    if greenlet.state != "running" and not greenlet.is_suspended():
        print(f"this greenlet has no frames: {greenlet.state}")
        return
    greenlet.thread.switch()
    try:
        if greenlet.is_suspended():
            # The unwinder cannot report an error.
            read(greenlet.context, 8 * SAVED[architecture(gdb.newest_frame().architecture())][1])
            unwinder.greenlet = greenlet
            gdb.invalidate_cached_frames()
            outer = gdb.newest_frame().older()
            if outer is None:
                raise gdb.GdbError("gdb finds no frames of the green thread")
            outer.select()
        gdb.execute(command)
    finally:
        unwinder.greenlet = None
        gdb.invalidate_cached_frames()
        former.switch()


class InfoGreenthreads(gdb.Command):
    """Lists the greenlets of all OS threads: the number, the kind, the name, the origin and the state."""

    def __init__(self):
        super().__init__("info greenthreads", gdb.COMMAND_STATUS)

    def invoke(self, arguments, from_tty):
        table = Table()
        for greenlet in greenlets(table):
            print(f"{greenlet.thread.num}.{greenlet.number:<6} {greenlet}")
        missing = missing_threads(table)
        if missing:
            print(f"{missing} OS threads of the list are not in this process")


class Greenthread(gdb.Command):
    """Runs a command in a green thread: `greenthread N bt`, `greenthread T.N bt`, `greenthread apply all bt`.

    N is the number of a green thread of the selected OS thread, and T.N of gdb's thread T.
    """

    def __init__(self):
        super().__init__("greenthread", gdb.COMMAND_STACK)

    def invoke(self, arguments, from_tty):
        words = arguments.split(None, 1)
        if words and words[0] == "apply":
            words = words[1].split(None, 1) if len(words) == 2 else []
            if len(words) != 2 or words[0] != "all":
                raise gdb.GdbError("usage: greenthread apply all COMMAND")
            for greenlet in list(greenlets(Table())):
                print(f"\n{greenlet.thread.num}.{greenlet.number} {greenlet}")
                run_in(greenlet, words[1])
            return
        if len(words) != 2:
            raise gdb.GdbError("usage: greenthread N COMMAND, with a number of `info greenthreads`")
        run_in(self.find(words[0]), words[1])

    @staticmethod
    def find(word):
        thread, _, green = word.rpartition(".")
        try:
            green = int(green)
            thread = int(thread) if thread else gdb.selected_thread().num
        except (ValueError, AttributeError):
            raise gdb.GdbError(f"{word} is not the number of a green thread")
        for greenlet in greenlets(Table()):
            if (greenlet.thread.num, greenlet.number) == (thread, green):
                return greenlet
        raise gdb.GdbError(f"there is no green thread {thread}.{green}; `info greenthreads` lists them")


InfoGreenthreads()
Greenthread()
