//! The declarations in `src/sys.rs` agree with the installed headers.

#![cfg(all(unix, not(feature = "bundled")))]

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};

const SYS: &str = include_str!("../src/sys.rs");

#[test]
fn the_headers_agree_with_the_declarations() {
    let output = compile(&checks(SYS));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_wrong_declaration_does_not_compile() {
    let wrongs = [
        ("EV_READ: c_short = 0x02", "EV_READ: c_short = 0x03"),
        ("timeout: *const timeval", "timeout: *mut timeval"),
        ("what: c_short", "what: c_int"),
        ("fn event_del(event: *mut event) -> c_int", "fn event_del(event: *mut event)"),
        ("fn(c_int, c_short, *mut c_void)", "fn(c_int, c_int, *mut c_void)"),
        ("fn event_get_version", "fn event_get_edition"),
    ];
    for (right, wrong) in wrongs {
        assert!(SYS.contains(right), "`{right}` is not declared");
        assert!(!compile(&checks(&SYS.replace(right, wrong))).status.success(), "`{wrong}` passes");
    }
}

/// Returns a C program that compiles if the headers agree with the declarations in `text`.
fn checks(text: &str) -> String {
    let mut c = String::from("#include <event2/event.h>\n");
    let mut count = 0;
    for declaration in declarations(text) {
        let words = declaration.strip_prefix("pub(crate) ").unwrap_or(&declaration);
        if let Some(constant) = words.strip_prefix("const ") {
            let (name, value) = constant.split_once(" = ").expect("a constant has a value");
            let (name, _) = name.split_once(": ").expect("a constant has a type");
            writeln!(c, "_Static_assert({name} == {value}, \"{name}\");").unwrap();
        } else if let Some(function) = words.strip_prefix("fn ") {
            let (name, signature) = function.split_at(function.find('(').expect("a function has parameters"));
            writeln!(c, "{};", prototype(&format!("(*const check_{name})"), signature, Some(name))).unwrap();
        } else if let Some(alias) = words.strip_prefix("type ") {
            let (name, pointer) = alias.split_once(" = ").expect("an alias has a meaning");
            let signature = pointer.strip_prefix("unsafe extern \"C\" fn").expect("an alias is a function pointer");
            writeln!(c, "{};", prototype(&format!("callback_{name}"), signature, None)).unwrap();
            writeln!(c, "{name} check_{name} = callback_{name};").unwrap();
        } else {
            continue;
        }
        count += 1;
    }
    assert!(count > 25, "only {count} declarations are found");
    c
}

/// Returns the declarations of `text`, each on one line without its semicolon.
fn declarations(text: &str) -> Vec<String> {
    let code: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join(" ");
    let code = code.split_whitespace().collect::<Vec<_>>().join(" ");
    let parts = code.split(['{', '}', ';']).map(str::trim);
    parts.filter(|part| part.starts_with("pub(crate) ")).map(str::to_owned).collect()
}

/// Returns the C declaration of `name` for a Rust `signature` such as `(fd: c_int) -> *mut event`.
fn prototype(name: &str, signature: &str, value: Option<&str>) -> String {
    let (parameters, result) = signature.split_once(" -> ").unwrap_or((signature, "()"));
    let parameters = parameters.trim_start_matches('(').trim_end_matches([' ', ')']).trim_end_matches(',');
    let parameters = parameters.split(", ").map(|parameter| parameter.split_once(": ").map_or(parameter, |it| it.1));
    let parameters: Vec<String> =
        parameters.map(|rust| if rust.is_empty() { "void".into() } else { c_type(rust) }).collect();
    let value = value.map(|value| format!(" = {value}")).unwrap_or_default();
    format!("{} {name}({}){value}", c_type(result), parameters.join(", "))
}

fn c_type(rust: &str) -> String {
    let rust = rust.trim();
    if let Some(target) = rust.strip_prefix("*const ") {
        return format!("const {} *", c_type(target));
    }
    if let Some(target) = rust.strip_prefix("*mut ") {
        return format!("{} *", c_type(target));
    }
    match rust {
        "()" | "c_void" => "void".into(),
        "c_char" => "char".into(),
        "c_int" => "int".into(),
        "c_short" => "short".into(),
        "event" | "event_base" | "event_config" | "timeval" => format!("struct {rust}"),
        "event_callback_fn" | "event_log_cb" => rust.into(),
        other => panic!("no C type is known for `{other}`"),
    }
}

/// Lets the C compiler check `program`.
fn compile(program: &str) -> Output {
    let flags = Command::new("pkg-config").args(["--cflags", "libevent_core"]).output().expect("pkg-config runs");
    assert!(flags.status.success(), "{}", String::from_utf8_lossy(&flags.stderr));
    let flags = String::from_utf8(flags.stdout).expect("flags are text");
    let mut compiler = Command::new("cc")
        .args(["-x", "c", "-std=c11", "-Werror", "-fsyntax-only", "-"])
        .args(flags.split_whitespace())
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a C compiler runs");
    compiler.stdin.take().expect("a pipe").write_all(program.as_bytes()).expect("the compiler reads");
    compiler.wait_with_output().expect("the compiler ends")
}
