//! The examples of std's `process` and of `os::unix::process`.

use super::{Folder, examples};

examples! {
    fn module() {
        use greenhub::process::Command;

        let output = Command::new("echo").arg("Hello world").output().expect("Failed to execute command");
        assert_eq!(b"Hello world\n", output.stdout.as_slice());
    }

    fn module_with_pipes() {
        use greenhub::process::{Command, Stdio};

        let echo_child =
            Command::new("echo").arg("Oh no, a tpyo!").stdout(Stdio::piped()).spawn().expect("Failed to start echo");
        let echo_out = echo_child.stdout.expect("Failed to open echo stdout");
        let sed_child = Command::new("sed")
            .arg("s/tpyo/typo/")
            .stdin(Stdio::from(echo_out))
            .stdout(Stdio::piped())
            .spawn()
            .expect("Failed to start sed");
        let output = sed_child.wait_with_output().expect("Failed to wait on sed");
        assert_eq!(b"Oh no, a typo!\n", output.stdout.as_slice());
    }

    fn module_with_a_thread() {
        use greenhub::io::Write;
        use greenhub::process::{Command, Stdio};

        let mut child = Command::new("/bin/cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("failed to execute child");
        let mut stdin = child.stdin.take().expect("failed to get stdin");
        greenhub::thread::spawn(move || stdin.write_all(b"test").expect("failed to write to stdin"));
        let output = child.wait_with_output().expect("failed to wait on child");
        assert_eq!(b"test", output.stdout.as_slice());
    }

    fn child() {
        use greenhub::process::Command;

        let mut child = Command::new("/bin/cat")
            .stdin(greenhub::process::Stdio::null())
            .arg("/dev/null")
            .spawn()
            .expect("failed to execute child");
        let ecode = child.wait().expect("failed to wait on child");
        assert!(ecode.success());
    }

    fn child_kill() {
        use greenhub::process::Command;

        let mut command = Command::new("sleep");
        let mut child = command.arg("3600").spawn().expect("sleep command didn't start");
        assert_ne!(child.id(), 0);
        assert!(child.try_wait().expect("the child can be asked").is_none());
        child.kill().expect("command couldn't be killed");
        assert!(!child.wait().unwrap().success());
    }

    fn command() {
        use greenhub::process::Command;

        let mut echo_hello = Command::new("sh");
        echo_hello.arg("-c").arg("echo hello");
        let hello_1 = echo_hello.output().expect("failed to execute process");
        let hello_2 = echo_hello.output().expect("failed to execute process");
        assert_eq!(hello_1.stdout, hello_2.stdout);
    }

    fn command_environment() {
        use greenhub::process::{Command, Stdio};
        use std::collections::HashMap;
        use std::env;

        let filtered_env: HashMap<String, String> = env::vars().filter(|(k, _)| k == "PATH").collect();
        let output = Command::new("env")
            .stdin(Stdio::null())
            .env_clear()
            .envs(&filtered_env)
            .env("TZ", "UTC")
            .env("LANG", "C")
            .env_remove("LANG")
            .current_dir("/")
            .output()
            .expect("env failed to start");
        let printed = String::from_utf8(output.stdout).unwrap();
        assert!(printed.contains("TZ=UTC") && !printed.contains("LANG"), "{printed}");
    }

    fn command_getters() {
        use greenhub::process::Command;
        use std::ffi::OsStr;
        use std::path::Path;

        let mut cmd = Command::new("echo");
        cmd.arg("first").arg("second").env("TERM", "dumb").env_remove("TZ").current_dir("/bin");
        assert_eq!(cmd.get_program(), "echo");
        let args: Vec<&OsStr> = cmd.get_args().collect();
        assert_eq!(args, &["first", "second"]);
        let envs: Vec<(&OsStr, Option<&OsStr>)> = cmd.get_envs().collect();
        assert_eq!(envs, &[(OsStr::new("TERM"), Some(OsStr::new("dumb"))), (OsStr::new("TZ"), None)]);
        assert_eq!(cmd.get_current_dir(), Some(Path::new("/bin")));
    }

    fn command_status() {
        use greenhub::process::Command;

        let status = Command::new("sh").args(["-c", "exit 3"]).status().expect("failed to execute process");
        assert!(!status.success());
        match status.code() {
            Some(code) => assert_eq!(code, 3),
            None => panic!("Process terminated by signal"),
        }
    }

    fn stdio_from_a_file() -> greenhub::io::Result<()> {
        use greenhub::fs::File;
        use greenhub::process::Command;

        let folder = Folder::new();
        let file = File::open(folder.file("foo.txt", "Hello, world!"))?;
        let reverse = Command::new("rev").stdin(file).output()?;
        assert_eq!(reverse.stdout.trim_ascii_end(), b"!dlrow ,olleH");
        Ok(())
    }

    fn stdio_of_each_kind() {
        use greenhub::process::{Command, Stdio};

        let output = Command::new("echo")
            .arg("Hello, world!")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .output()
            .expect("Failed to execute command");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "Hello, world!\n");
    }

    fn exit_code() {
        use greenhub::process::{ExitCode, Termination};

        fn run() -> ExitCode {
            ExitCode::from(42)
        }
        let _: ExitCode = run().report();
        let _ = (ExitCode::SUCCESS, ExitCode::FAILURE);
    }

    fn functions_of_the_process() {
        use greenhub::process;

        assert_ne!(process::id(), 0);
        // Compiled only.
        let _ends: [fn() -> u8; 2] = [|| process::exit(0), || process::abort()];
    }

    fn command_ext() {
        use greenhub::os::unix::process::CommandExt;
        use greenhub::process::Command;

        let output = Command::new("sh").process_group(0).arg0("shell").args(["-c", "echo $0"]).output();
        assert_eq!(output.expect("failed to execute process").stdout, b"shell\n");
    }

    fn exit_status_ext() {
        use greenhub::os::unix::process::ExitStatusExt;
        use greenhub::process::Command;

        let status = Command::new("sh").args(["-c", "kill -9 $$"]).status().unwrap();
        assert_eq!(status.signal(), Some(9));
    }
}
