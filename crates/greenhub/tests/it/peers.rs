//! Third-party programs as peers. `cargo xtask test` runs these tests where the programs are installed.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::example;
use crate::support::run;
use crate::support::web_server::{Directory, WebServer};
use greenhub::net::TcpStream;

/// A program that runs until the test ends.
struct Peer(Child);

impl Peer {
    /// Starts a server on a free port, and waits until it accepts connections.
    fn serve(command: impl Fn(u16) -> Command) -> (Peer, u16) {
        // Another program may take the port first; then the server exits and another port is tried.
        let serving = (0..20).find_map(|_| {
            let port = free_port();
            let mut command = command(port);
            let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let mut peer = Peer(quiet.spawn().expect("the program is installed"));
            while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
                if peer.0.try_wait().expect("a child").is_some() {
                    return None;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            peer.0.try_wait().expect("a child").is_none().then_some((peer, port))
        });
        serving.expect("the server starts on one of 20 ports")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns a port that is free at present.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port()
}

fn connect(port: u16) -> TcpStream {
    TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).expect("the server listens")
}

fn output(command: &mut Command) -> String {
    let output = command.output().expect("the program is installed");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("the output is UTF-8")
}

mod gdb {
    use std::fs;
    use std::os::unix::process::CommandExt;

    use greenhub::sync::Mutex;
    use greenhub::{Builder, sleep, thread};
    use nix::sys::signal::{Signal, raise};

    use super::*;
    use crate::support::green::LONG;

    const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/debug/greenhub-gdb.py");
    const PROGRAM: &str = "peers::gdb::stops_with_parked_green_threads";

    #[inline(never)]
    fn read_in_vain(mut reader: greenhub::io::PipeReader) {
        let _ = std::hint::black_box(reader.read(&mut [0]));
    }

    #[inline(never)]
    fn lock_in_vain(lock: &Mutex<()>) {
        drop(std::hint::black_box(lock.lock()));
    }

    /// Stops for the debugger while the main greenlet is parked.
    #[inline(never)]
    fn stop_here() {
        raise(Signal::SIGTRAP).unwrap();
    }

    #[inline(never)]
    fn join_the_stopper() {
        std::hint::black_box(greenhub::spawn(stop_here).join()).unwrap();
    }

    /// The program that the debugger looks into. Without a debugger the signal would end it.
    #[test]
    #[ignore = "is run by the other tests"]
    fn stops_with_parked_green_threads() {
        if !crate::support::is_child() {
            return;
        }
        static LOCK: Mutex<()> = Mutex::new(());
        let _held = LOCK.lock().unwrap();
        let (parked, is_parked) = std::sync::mpsc::channel();
        std::thread::Builder::new()
            .name("other".into())
            .spawn(move || {
                let other = Builder::new().name("other reader".into()).spawn(|| {
                    let (reader, _writer) = greenhub::io::pipe().unwrap();
                    read_in_vain(reader);
                });
                thread::yield_now();
                parked.send(()).unwrap();
                drop(other.unwrap().join());
            })
            .unwrap();
        let (reader, _writer) = greenhub::io::pipe().unwrap();
        let _reading = Builder::new().name("reader".into()).spawn(|| read_in_vain(reader)).unwrap();
        let _locking = greenhub::spawn(|| lock_in_vain(&LOCK));
        let _delayed = greenhub::spawn_after(LONG, || ());
        sleep(Duration::from_millis(1));
        is_parked.recv().unwrap();
        join_the_stopper();
    }

    /// Runs these commands of gdb.
    fn debug(target: &[&str], commands: &[&str]) -> String {
        let mut command = Command::new("gdb");
        command.args(["-nx", "-batch", "-x", SCRIPT]);
        command.args(["-iex", "set disable-randomization off", "-iex", "set debuginfod enabled off"]);
        command.args(commands.iter().flat_map(|command| ["-ex", command]));
        // Guards by advice are gaps in a mapping. gdb leaves a megabyte around each out of a core file that it writes.
        command.env("GREENHUB_GUARD", "mprotect");
        // In its own process group, since gdb gives the terminal to the program.
        // gdb fails if its last command fails.
        command
            .args(["-ex", "echo \\n"])
            .args(target)
            .env("GREENHUB_TEST_CHILD", "1")
            .stdin(Stdio::null())
            .process_group(0);
        let output = command.output().expect("gdb is installed");
        let [out, errors] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
        assert!(output.status.success() && !errors.contains("Python Exception"), "{out}{errors}");
        format!("{out}{errors}")
    }

    /// Returns the part of the output from a line that begins with a number of a green thread and has `text`, up to an
    /// empty line.
    fn entry<'a>(output: &'a str, text: &str) -> &'a str {
        let is_it = |entry: &&str| entry.starts_with(|c: char| c.is_ascii_digit()) && entry.contains(text);
        output.split("\n\n").find(is_it).unwrap_or_else(|| panic!("{text} is missing:\n{output}"))
    }

    #[track_caller]
    fn shows(output: &str, calls: &[&str]) {
        let found = calls.iter().try_fold(output, |rest, call| rest.split_once(call).map(|(_, rest)| rest));
        assert!(found.is_some(), "{calls:?} are missing or out of order:\n{output}");
    }

    #[track_caller]
    fn shows_all(output: &str) {
        for (name, calls) in [
            ("\"reader\" (spawned at ", &["waiting for a descriptor", "read_in_vain", "peers.rs:"][..]),
            (": waiting for a lock", &["lock_in_vain", "peers.rs:"]),
            (": begins later", &["this greenlet has no frames"]),
            ("main greenlet: waiting for a green thread", &["join_the_stopper", "peers.rs:", "thread_start"]),
            ("\"other reader\" (spawned at ", &["waiting for a descriptor", "read_in_vain", "peers.rs:"]),
            (": running", &["stop_here", "peers.rs:"]),
        ] {
            shows(entry(output, name), calls);
        }
        // The frame at which the OS thread is belongs to none of the suspended ones.
        assert!(!entry(output, "\"reader\" (spawned at ").contains("raise"), "{output}");
    }

    #[test]
    #[ignore = "needs gdb: cargo xtask test"]
    fn a_selected_frame_of_rust_makes_no_difference() {
        let program = std::env::current_exe().unwrap();
        let run = format!("run --exact {PROGRAM} --ignored --nocapture --test-threads=1");
        // Out of the C library.
        let commands = [&run, "up 5", "show language", "info greenthreads", "show language", "kill"];
        let output = debug(&[program.to_str().unwrap()], &commands);
        shows(&output, &["currently rust", "\"reader\" (spawned at ", "currently rust"]);
    }

    #[test]
    #[ignore = "needs gdb: cargo xtask test"]
    fn shows_the_green_threads_of_a_process_and_of_its_core_file() {
        let program = std::env::current_exe().unwrap();
        let program = program.to_str().unwrap();
        let core = std::env::temp_dir().join(format!("greenhub-core-{}", std::process::id()));
        let core = core.to_str().unwrap();
        let save = format!("generate-core-file {core}");
        let run = format!("run --exact {PROGRAM} --ignored --nocapture --test-threads=1");
        let stack = "printf \"sp %lx\\n\", (unsigned long)$sp";
        let commands = [
            &run,
            "echo \\n",
            "info greenthreads",
            stack,
            "greenthread apply all bt",
            stack,
            "greenthread 99 bt",
            "greenthread none bt",
            &save,
            "kill",
        ];
        let output = debug(&[program], &commands);
        let (list, backtraces) = output.split_once("\nsp ").expect("the list ends there");
        assert_eq!(list.matches(": waiting for a descriptor").count(), 2, "{output}");
        shows_all(backtraces);
        let stacks: Vec<&str> = output.lines().filter(|line| line.starts_with("sp ")).collect();
        assert!(stacks.len() == 2 && stacks[0] == stacks[1], "{output}");
        assert!(output.contains("there is no green thread ") && output.contains("is not the number"), "{output}");

        let output = debug(&[program, core], &["greenthread apply all bt"]);
        let _ = fs::remove_file(core);
        shows_all(&output);
    }

    /// Another offset in the table makes each read of that field a read of something else.
    #[test]
    #[ignore = "needs gdb: cargo xtask test"]
    fn reads_a_damaged_program_without_a_python_error() {
        const NUMBERS: usize = 24;
        let program = std::env::current_exe().unwrap();
        let run = format!("run --exact {PROGRAM} --ignored --nocapture --test-threads=1");
        let number = |index: usize| format!("*(unsigned int*)((char*)&GREENHUB_GDB + {})", NUMBERS + 4 * index);
        let (number_at, state, name, name_len) = (number(10), number(11), number(18), number(19));
        let long_names = format!("set var {name_len} = {name}");
        let strange_states = format!("set var {state} = {number_at}");
        let outside = format!("set var {state} = 0x7fffffff");
        let commands = [
            &*run,
            &long_names,
            "info greenthreads",
            "echo \\n",
            &strange_states,
            "info greenthreads",
            "echo \\n",
            &outside,
            "info greenthreads",
            "kill",
        ];
        let output = debug(&[program.to_str().unwrap()], &commands);
        assert!(output.contains("...\"") || output.contains("cannot be read"), "{output}");
        assert!(output.contains(": in an unknown state"), "{output}");
        assert!(output.contains("greenhub's table is damaged"), "{output}");
    }

    #[test]
    #[ignore = "needs gdb: cargo xtask test"]
    fn says_that_a_program_has_no_greenhub() {
        let output = debug(&["/bin/true"], &["info greenthreads"]);
        assert!(output.contains("no greenhub here"), "{output}");
    }
}

mod curl {
    use super::*;

    fn curl(arguments: &[&str]) -> String {
        output(Command::new("curl").args(["--silent", "--show-error", "--max-time", "30"]).args(arguments))
    }

    #[test]
    #[ignore = "needs curl: cargo xtask test"]
    fn gets_the_files_of_the_web_server() {
        let directory = Directory::new();
        let large = "0123456789".repeat(300_000);
        directory.write("large.txt", &large);
        directory.write("small.html", "<p>small");
        let server = WebServer::start(directory.path(), &["--threads", "2"]);
        let url = |name: &str| format!("http://{}/{name}", server.address);
        assert_eq!(curl(&[&url("large.txt")]), large);
        // Three requests over one connection.
        let three = curl(&["-w", "[%{num_connects}]", &url("small.html"), &url("small.html"), &url("none")]);
        assert_eq!(three, "<p>small[1]<p>small[0]404 Not Found[0]");
        assert!(curl(&["--head", &url("small.html")]).contains("Content-Length: 8\r\n"));
        example::ends(&server.interrupt(), 0);
    }

    #[test]
    #[ignore = "needs curl: cargo xtask test"]
    fn opens_many_connections_at_once() {
        let directory = Directory::new();
        directory.write("page", "content");
        let server = WebServer::start(directory.path(), &[]);
        let urls = format!("http://{}/page?[1-200]", server.address);
        let all = curl(&["--parallel", "--parallel-immediate", "--parallel-max", "50", &urls]);
        assert_eq!(all, "content".repeat(200));
        example::ends(&server.interrupt(), 0);
    }
}

mod wrk {
    use super::*;

    #[test]
    #[ignore = "needs wrk: cargo xtask test"]
    fn finds_no_error_under_load() {
        let directory = Directory::new();
        directory.write("page", &"x".repeat(1000));
        let server = WebServer::start(directory.path(), &["--threads", "2"]);
        let url = format!("http://{}/page", server.address);
        let printed = output(Command::new("wrk").args(["-t", "2", "-c", "200", "-d", "2", "--timeout", "30", &url]));
        assert!(!printed.contains("Socket errors") && !printed.contains("Non-2xx"), "{printed}");
        let requests = printed.lines().find_map(|line| line.split_once(" requests in ")).expect("a count").0;
        let answered = example::text(&server.interrupt());
        let answered: u64 = answered.split(' ').next().expect("a count").parse().expect("a number");
        // wrk closes connections with requests in flight.
        let counted: u64 = requests.trim().parse().expect("a number");
        assert!((counted..=counted + 400).contains(&answered), "{answered} answers, of which wrk counts {counted}");
    }
}

mod nginx {
    use super::*;

    fn configure(directory: &Path, port: u16) -> String {
        let root = directory.display();
        format!(
            "daemon off; master_process off; pid {root}/pid; error_log {root}/errors;
             events {{ worker_connections 1024; }}
             http {{
                 access_log off; types {{ text/html html; }} client_body_temp_path {root}/body; proxy_temp_path {root}/proxy;
                 fastcgi_temp_path {root}/fastcgi; uwsgi_temp_path {root}/uwsgi; scgi_temp_path {root}/scgi;
                 server {{ listen 127.0.0.1:{port}; root {root}/files; }}
             }}"
        )
    }

    fn start(directory: &Directory) -> (Peer, u16) {
        Peer::serve(|port| {
            directory.write("configuration", &configure(directory.path(), port));
            let mut command = Command::new("nginx");
            command.arg("-e").arg(directory.path().join("errors"));
            command.arg("-c").arg(directory.path().join("configuration"));
            command
        })
    }

    /// Sends one request on a persistent connection, and returns the body of the response.
    fn get(stream: &mut BufReader<TcpStream>, path: &str) -> io::Result<Vec<u8>> {
        write!(stream.get_mut(), "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        let (mut line, mut length) = (String::new(), 0);
        while line != "\r\n" {
            line.clear();
            stream.read_line(&mut line)?;
            if let Some(value) = line.strip_prefix("Content-Length: ") {
                length = value.trim().parse().expect("a number");
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        Ok(body)
    }

    #[test]
    #[ignore = "needs nginx: cargo xtask test"]
    fn serves_many_green_clients() {
        let directory = Directory::new();
        std::fs::create_dir(directory.path().join("files")).expect("the directory is new");
        for number in 0..10_usize {
            directory.write(&format!("files/{number}"), &number.to_string().repeat(number * 10_000 + 1));
        }
        let (nginx, port) = start(&directory);
        run("nginx::serves_many_green_clients", move || {
            let clients: Vec<_> = (0..100)
                .map(|client| {
                    greenhub::spawn(move || {
                        let mut stream = BufReader::new(connect(port));
                        for number in (0..10_usize).map(|step| (client + step) % 10) {
                            let body = get(&mut stream, &format!("/{number}")).expect("an answer");
                            assert_eq!(body.len(), number * 10_000 + 1);
                            assert!(body.iter().all(|&byte| byte == b'0' + number as u8));
                        }
                    })
                })
                .collect();
            clients.into_iter().for_each(|client| client.join().expect("no panic"));
        });
        drop(nginx);
    }

    #[test]
    #[ignore = "needs nginx: cargo xtask test"]
    fn serves_the_pages_that_recursive_fetch_finds() {
        let directory = Directory::new();
        std::fs::create_dir(directory.path().join("files")).expect("the directory is new");
        directory.write("files/index.html", "<a href='a.html'>a</a> <a href='none.html'>none</a>");
        directory.write("files/a.html", "<a href='/'>back</a> <a href='b.html'>b</a>");
        directory.write("files/b.html", "the end");
        let (nginx, port) = start(&directory);
        let url = format!("http://127.0.0.1:{port}/");
        let output = example::run(&mut example::command("recursive_fetch", &[url.as_str(), "--depth", "5"]));
        let printed = example::text(&output);
        let pages = ["/\n", "/a.html\n", "/b.html\n", "/none.html\n"];
        assert!(
            pages.iter().all(|page| printed.contains(&format!("{port}{page}"))),
            "{printed}{}",
            example::errors(&output)
        );
        assert!(printed.contains("404"), "{printed}");
        drop(nginx);
    }
}

mod redis {
    use super::*;

    fn start(directory: &Directory) -> (Peer, u16) {
        Peer::serve(|port| {
            let mut command = Command::new("redis-server");
            command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "no"]);
            command.arg("--dir").arg(directory.path());
            command
        })
    }

    /// A client connection to the server.
    struct Client(BufReader<TcpStream>);

    impl Client {
        fn new(port: u16) -> Client {
            Client(BufReader::new(connect(port)))
        }

        fn send(&mut self, words: &[&str]) {
            let mut command = format!("*{}\r\n", words.len());
            for word in words {
                command += &format!("${}\r\n{word}\r\n", word.len());
            }
            self.0.get_mut().write_all(command.as_bytes()).expect("the peer reads");
        }

        /// Reads a response: a list in brackets, a null as `-`.
        fn answer(&mut self) -> String {
            let mut line = String::new();
            self.0.read_line(&mut line).expect("an answer");
            let rest = line[1..].trim_end().to_owned();
            match &line[..1] {
                "$" if rest == "-1" => "-".to_owned(),
                "$" => {
                    let mut text = vec![0; rest.parse::<usize>().expect("a length") + 2];
                    self.0.read_exact(&mut text).expect("an answer");
                    String::from_utf8_lossy(&text[..text.len() - 2]).into_owned()
                }
                "*" => {
                    let items: Vec<_> = (0..rest.parse().expect("a length")).map(|_| self.answer()).collect();
                    format!("[{}]", items.join(" "))
                }
                _ => rest,
            }
        }

        fn ask(&mut self, words: &[&str]) -> String {
            self.send(words);
            self.answer()
        }
    }

    #[test]
    #[ignore = "needs redis-server: cargo xtask test"]
    fn serves_many_clients_over_plain_sockets() {
        let directory = Directory::new();
        let (redis, port) = start(&directory);
        run("redis::serves_many_clients_over_plain_sockets", move || {
            let mut first = Client::new(port);
            assert_eq!(first.ask(&["PING"]), "PONG");
            assert_eq!(first.ask(&["GET", "nothing"]), "-");
            let clients: Vec<_> = (0..50)
                .map(|number| {
                    greenhub::spawn(move || {
                        let (mut client, key) = (Client::new(port), format!("key {number}"));
                        for round in 0..20 {
                            assert_eq!(client.ask(&["SET", &key, &round.to_string()]), "OK");
                            assert_eq!(client.ask(&["GET", &key]), round.to_string());
                            client.ask(&["INCR", "all"]);
                        }
                    })
                })
                .collect();
            clients.into_iter().for_each(|client| client.join().expect("no panic"));
            assert_eq!(first.ask(&["GET", "all"]), "1000");
        });
        drop(redis);
    }

    #[test]
    #[ignore = "needs redis-server: cargo xtask test"]
    fn answers_a_pipeline_and_a_blocking_pop() {
        let directory = Directory::new();
        let (redis, port) = start(&directory);
        run("redis::answers_a_pipeline_and_a_blocking_pop", move || {
            let mut client = Client::new(port);
            (0..5000).for_each(|_| client.send(&["INCR", "count"]));
            assert!((1..=5000).all(|number: u32| client.answer() == number.to_string()));
            // The answer comes after another client pushes.
            let waiting = greenhub::spawn(move || Client::new(port).ask(&["BLPOP", "list", "0"]));
            greenhub::sleep(Duration::from_millis(20));
            assert_eq!(client.ask(&["RPUSH", "list", "item"]), "1");
            assert_eq!(waiting.join().expect("no panic"), "[list item]");
            let mut subscriber = Client::new(port);
            assert_eq!(subscriber.ask(&["SUBSCRIBE", "news"]), "[subscribe news 1]");
            assert_eq!(client.ask(&["PUBLISH", "news", "hello"]), "1");
            assert_eq!(subscriber.answer(), "[message news hello]");
        });
        drop(redis);
    }
}
