//! The examples of std's `sync::mpsc`.

use super::examples;

examples! {
    fn module() {
        use greenhub::sync::mpsc::channel;
        use greenhub::thread;

        let (tx, rx) = channel();
        thread::spawn(move || tx.send(10).unwrap());
        assert_eq!(rx.recv().unwrap(), 10);
    }

    fn module_shared_by_several_senders() {
        use greenhub::sync::mpsc::channel;
        use greenhub::thread;

        let (tx, rx) = channel();
        for i in 0..10 {
            let tx = tx.clone();
            thread::spawn(move || tx.send(i).unwrap());
        }
        for _ in 0..10 {
            let j = rx.recv().unwrap();
            assert!(0 <= j && j < 10);
        }
    }

    fn module_after_the_sender_has_gone() {
        use greenhub::sync::mpsc::channel;

        let (tx, rx) = channel::<i32>();
        drop(tx);
        assert!(rx.recv().is_err());
    }

    fn module_synchronous() {
        use greenhub::sync::mpsc::sync_channel;
        use greenhub::thread;

        let (tx, rx) = sync_channel::<i32>(0);
        thread::spawn(move || tx.send(53).unwrap());
        rx.recv().unwrap();
    }

    fn receiver() {
        use greenhub::sync::mpsc::channel;
        use greenhub::thread;
        use greenhub::time::Duration;

        let (send, recv) = channel();
        thread::spawn(move || {
            send.send("Hello world!").unwrap();
            thread::sleep(Duration::from_millis(2));
            send.send("Delayed").unwrap();
        });
        assert_eq!(recv.recv().unwrap(), "Hello world!");
        assert_eq!(recv.recv().unwrap(), "Delayed");
    }

    fn receiver_try_recv() {
        use greenhub::sync::mpsc::{Receiver, channel};

        let (_, receiver): (_, Receiver<i32>) = channel();
        assert!(receiver.try_recv().is_err());
    }

    fn receiver_recv_timeout() {
        use greenhub::sync::mpsc;
        use greenhub::thread;
        use greenhub::time::Duration;

        let (send, recv) = mpsc::channel();
        thread::spawn(move || send.send('a').unwrap());
        assert_eq!(recv.recv_timeout(Duration::from_secs(60)), Ok('a'));
        let (_send, recv) = mpsc::channel::<char>();
        assert_eq!(recv.recv_timeout(Duration::from_millis(1)), Err(mpsc::RecvTimeoutError::Timeout));
    }

    fn iter() {
        use greenhub::sync::mpsc::channel;
        use greenhub::thread;

        let (send, recv) = channel();
        thread::spawn(move || {
            send.send(1u8).unwrap();
            send.send(2u8).unwrap();
            send.send(3u8).unwrap();
        });
        let mut seen = Vec::new();
        for x in recv.iter() {
            seen.push(x);
        }
        assert_eq!(seen, [1, 2, 3]);
    }

    fn try_iter() {
        use greenhub::sync::mpsc::channel;
        use greenhub::thread;

        let (sender, receiver) = channel();
        assert!(receiver.try_iter().next().is_none());
        let sent = thread::spawn(move || {
            sender.send(1).unwrap();
            sender.send(2).unwrap();
        });
        sent.join().unwrap();
        assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [1, 2]);
    }

    fn into_iter() {
        use greenhub::sync::mpsc::channel;
        use greenhub::thread;

        let (send, recv) = channel();
        thread::spawn(move || {
            send.send(1u8).unwrap();
            send.send(2u8).unwrap();
        });
        let mut sum = 0;
        for x in recv.into_iter() {
            sum += x;
        }
        assert_eq!(sum, 3);
    }

    fn sender() {
        use greenhub::sync::mpsc::channel;
        use greenhub::thread;

        let (sender, receiver) = channel();
        let sender2 = sender.clone();
        thread::spawn(move || sender.send(1).unwrap());
        thread::spawn(move || sender2.send(2).unwrap());
        let msg = receiver.recv().unwrap();
        let msg2 = receiver.recv().unwrap();
        assert_eq!(3, msg + msg2);
    }

    fn sender_send() {
        use greenhub::sync::mpsc::channel;

        let (tx, rx) = channel();
        tx.send(1).unwrap();
        drop(rx);
        assert_eq!(tx.send(1).unwrap_err().0, 1);
    }

    fn sync_sender() {
        use greenhub::sync::mpsc::sync_channel;
        use greenhub::thread;

        let (sync_sender, receiver) = sync_channel(2);
        let sync_sender2 = sync_sender.clone();
        thread::spawn(move || {
            sync_sender.send(1).unwrap();
            sync_sender.send(2).unwrap();
        });
        thread::spawn(move || sync_sender2.send(3).unwrap());
        let mut sum = receiver.recv().unwrap();
        sum += receiver.recv().unwrap();
        sum += receiver.recv().unwrap();
        assert_eq!(sum, 6);
    }

    fn sync_sender_try_send() {
        use greenhub::sync::mpsc::{TrySendError, sync_channel};

        let (sync_sender, receiver) = sync_channel(1);
        let sync_sender2 = sync_sender.clone();
        sync_sender.try_send(1).unwrap();
        assert!(matches!(sync_sender2.try_send(2), Err(TrySendError::Full(2))));
        assert_eq!(receiver.try_recv(), Ok(1));
        drop(receiver);
        assert!(matches!(sync_sender.try_send(3), Err(TrySendError::Disconnected(3))));
    }

    fn channel() {
        use greenhub::sync::mpsc::channel;
        use greenhub::thread;

        fn expensive_computation() -> i32 {
            42
        }
        let (sender, receiver) = channel();
        thread::spawn(move || sender.send(expensive_computation()).unwrap());
        assert_eq!(receiver.recv().unwrap(), 42);
    }

    fn sync_channel() {
        use greenhub::sync::mpsc::sync_channel;
        use greenhub::thread;

        let (sender, receiver) = sync_channel(1);
        sender.send(1).unwrap();
        thread::spawn(move || sender.send(2).unwrap());
        assert_eq!(receiver.recv().unwrap(), 1);
        assert_eq!(receiver.recv().unwrap(), 2);
    }
}
