//! The facade finds a hub by itself.

#[test]
fn the_default_hub_is_found_without_a_word() {
    assert_eq!(greenhub::get_hub().name(), "epoll");
    let green = greenhub::spawn(|| {
        greenhub::sleep(std::time::Duration::from_millis(1));
        7
    });
    assert_eq!(green.join().unwrap(), 7);
}
