//! ureq over green sockets: 500 requests at once, against the server of the adapters and against nginx.

use std::cell::Cell;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;

use greenhub::net::{StopServe, TcpListener};
use greenhub::{GreenPool, spawn_n};
use greenhub_adapters::http::Server as HttpServer;
use http::Response;
use recipes::server::Server;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::rustls_https::{Identity, serve};
use crate::support::{MANY, is_installed, run_many};
use crate::ureq_client::{agent, fetch_all};

#[test]
fn requests_of_many_green_threads_overlap() {
    run_many(|ticker| {
        let (listener, gate) = (TcpListener::bind("127.0.0.1:0").expect("a port"), ticker.gate());
        let url = format!("http://{}/", listener.local_addr().expect("bound"));
        let (stop, begun) = (StopServe::new(), Rc::new(Cell::new(0)));
        let stopping = stop.clone();
        spawn_n(move || {
            HttpServer::new().serve(&stopping, &listener, &GreenPool::new(1000), move |request, _| {
                begun.set(begun.get() + 1);
                // No request is answered before all are there, and while the OS thread is blocked.
                while begun.get() < MANY {
                    gate.pass();
                }
                Response::new(request.uri().query().unwrap_or_default().to_owned())
            })
        });
        let urls: Vec<String> = (0..MANY).map(|number| format!("{url}?{number}")).collect();
        let agent = agent();
        // The second time over the same connections.
        for _ in 0..2 {
            let answered = fetch_all(&agent, &urls).expect("answers");
            assert!((0..MANY).zip(&answered).all(|(number, text)| *text == number.to_string()), "{answered:?}");
        }
        stop.stop();
    });
}

#[test]
fn sessions_of_tls_stack_over_green_sockets() {
    run_many(|ticker| {
        let (identity, gate) = (Identity::new().expect("a certificate"), ticker.gate());
        let answer = move || {
            gate.pass();
            "secret".to_owned()
        };
        let (address, _server) = serve(&identity, answer).expect("a port");
        let root = Certificate::from_pem(identity.certificate.as_bytes()).expect("a certificate");
        let tls = TlsConfig::builder().root_certs(RootCerts::new_with_certs(&[root])).build();
        let agent = greenhub_adapters::ureq::agent(::ureq::Agent::config_builder().tls_config(tls).build());
        let url = format!("https://localhost:{}/", address.port());
        assert_eq!(fetch_all(&agent, &vec![url; 50]).expect("answers"), vec!["secret"; 50]);
        // The certificate is signed by itself, and the default roots do not have it.
        let url = format!("https://localhost:{}/", address.port());
        assert!(fetch_all(&crate::ureq_client::agent(), &[url]).is_err());
    });
}

#[test]
fn nginx_serves_many_green_threads() {
    if !is_installed("nginx") {
        return;
    }
    run_many(|ticker| {
        // Another program may take the port first. Then nginx ends, and the next port is tried.
        let (nginx, port) = (0..20).find_map(|_| start_nginx().ok()).expect("nginx starts");
        let urls: Vec<String> = (0..MANY).map(|number| format!("http://127.0.0.1:{port}/{number}")).collect();
        let agent = agent();
        let begun = ticker.ticks();
        for _ in 0..3 {
            let answered = fetch_all(&agent, &urls).expect("answers");
            assert!((0..MANY).zip(&answered).all(|(number, text)| *text == format!("page /{number}")), "{answered:?}");
        }
        ticker.gate().pass();
        assert!(ticker.ticks() > begun);
        drop(nginx);
    });
}

fn start_nginx() -> Result<(Server, u16), recipes::web::AnyError> {
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let configure = |command: &mut Command, folder: &Path| {
        let root = folder.display();
        let text = format!(
            "daemon off; master_process off; pid {root}/pid; error_log {root}/errors;
             events {{ worker_connections 2048; }}
             http {{
                 access_log off; client_body_temp_path {root}/body; proxy_temp_path {root}/proxy;
                 fastcgi_temp_path {root}/fastcgi; uwsgi_temp_path {root}/uwsgi; scgi_temp_path {root}/scgi;
                 server {{ listen 127.0.0.1:{port} backlog=1024; location / {{ return 200 \"page $uri\"; }} }}
             }}"
        );
        std::fs::write(folder.join("configuration"), text).expect("the folder can be written");
        command.arg("-e").arg(folder.join("errors")).arg("-c").arg(folder.join("configuration"));
    };
    let is_ready = move |_: &Server| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
    Ok((Server::start("nginx", "none", configure, is_ready)?, port))
}
