//! The costs of transports. Their behaviour is tested by the crate `hub-tokio`.

use std::io::{Read, Write};

use greenhub::{spawn, use_hub};
use hub_tokio::GreenTransport;
use tokio::io::duplex;

use crate::support::counting::allocations;
use crate::support::run;

#[test]
fn warm_transports_wait_without_allocations() {
    run("warm_transports_wait_without_allocations", || {
        use_hub("tokio").unwrap();
        let (ours, theirs) = duplex(8);
        let echo = spawn(move || {
            let (mut theirs, mut buffer) = (GreenTransport::new(theirs), [0; 8]);
            while theirs.read(&mut buffer)? != 0 {
                theirs.write_all(&buffer)?;
            }
            std::io::Result::Ok(())
        });
        let mut ours = GreenTransport::new(ours);
        let mut exchange = || {
            ours.write_all(&[7; 8]).unwrap();
            ours.read_exact(&mut [0; 8]).unwrap();
        };
        (0..10).for_each(|_| exchange());
        let before = allocations();
        (0..100).for_each(|_| exchange());
        assert_eq!(allocations() - before, 0);
        drop(ours);
        echo.join().unwrap().unwrap();
    });
}

#[test]
fn a_paused_read_that_has_ended_holds_no_waker() {
    run("a_paused_read_that_has_ended_holds_no_waker", || {
        use_hub("tokio").unwrap();
        let (ours, _theirs) = duplex(8);
        let ours = GreenTransport::new(ours);
        ours.pause();
        ours.set_read_timeout(Some(std::time::Duration::from_nanos(1))).unwrap();
        let wait = || assert!((&ours).read(&mut [0]).is_err());
        let cost = || {
            let before = allocations();
            wait();
            allocations() - before
        };
        (0..10).for_each(|_| wait());
        // The error of a timeout needs no memory, and a waker that is held could not be used again.
        assert_eq!((0..10).map(|_| cost()).min(), Some(0));
    });
}
