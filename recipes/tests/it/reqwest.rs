//! reqwest's client.

use std::time::Duration;

use greenhub::{spawn, with_timeout};
use hub_tokio::block_on_in;
use reqwest::Client;
use tokio::runtime::Builder;

use crate::reqwest_client::post;
use crate::support::{WITH_TOKIO, WITHOUT_TOKIO, run};

#[test]
fn requests_of_green_threads_overlap() {
    run(WITH_TOKIO, |ticker| {
        let gate = ticker.gate();
        let (address, _server) = recipes::web::serve(move |path, body| {
            gate.pass();
            format!("{path} {body}")
        })
        .expect("a port");
        let client = Client::new();
        let requests: Vec<_> = (0..10)
            .map(|number| {
                let client = client.clone();
                spawn(move || post(&client, &format!("http://{address}/{number}"), "body"))
            })
            .collect();
        for (number, request) in requests.into_iter().enumerate() {
            assert_eq!(request.join().expect("no panic").expect("an answer"), format!("/{number} body"));
        }
    });
}

#[test]
fn a_timeout_of_the_library_and_one_of_greenhub_end_a_request() {
    run(WITH_TOKIO, |_| {
        let (address, _server) = recipes::web::serve(|_, _| {
            greenhub::sleep(Duration::from_secs(3600));
            String::new()
        })
        .expect("a port");
        let url = format!("http://{address}/");
        let hasty = Client::builder().timeout(Duration::from_millis(20)).build().expect("a client");
        assert!(post(&hasty, &url, "").expect_err("no answer comes").is_timeout());
        let ended = with_timeout(Duration::from_millis(20), || post(&Client::new(), &url, ""));
        assert!(ended.is_err());
    });
}

#[test]
fn a_runtime_on_another_os_thread_is_entered_for_each_poll() {
    run(WITHOUT_TOKIO, |ticker| {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let gate = ticker.gate();
        let (address, _server) = recipes::web::serve(move |path, _| {
            gate.pass();
            path.to_owned()
        })
        .expect("a port");
        let handle = runtime.handle().clone();
        let request = spawn(move || {
            block_on_in(&handle, async {
                Client::new().get(format!("http://{address}/path")).send().await?.text().await
            })
        });
        assert_eq!(request.join().expect("no panic").expect("an answer"), "/path");
    });
}
