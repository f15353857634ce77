//! The facade chooses a default hub.

#[test]
fn the_default_hub_is_chosen_without_configuration() {
    let chosen = std::env::var("GREENHUB_HUB").or_else(|_| std::env::var("EVENTLET_HUB"));
    let expected = chosen.as_deref().unwrap_or_else(|_| greenhub::get_default_hub().expect("there is one").name);
    assert_eq!(greenhub::get_hub().name(), expected);
    let green = greenhub::spawn(|| {
        greenhub::sleep(std::time::Duration::from_millis(1));
        7
    });
    assert_eq!(green.join().unwrap(), 7);
}
