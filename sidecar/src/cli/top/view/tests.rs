use ratatui::{Terminal, backend::TestBackend, buffer::Cell as Symbol};

use super::{
    super::rows::{rows, tests::graphs},
    *,
};
use crate::cli::golden;

/// A view of the rows that the tests of rows have.
fn view() -> View {
    let (before, now) = graphs();
    let mut view = View::new("127.0.0.1:4195".into(), Palette::Plain);
    view.show(rows(&before, &now), now.uptime);
    view
}

/// What a screen of this size shows, line by line.
fn screen(view: &mut View, columns: u16, lines: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(columns, lines)).expect("in memory");
    terminal.draw(|frame| view.draw(frame)).expect("in memory");
    let buffer = terminal.backend().buffer();
    let cells: Vec<_> = buffer.content().iter().map(Symbol::symbol).collect();
    cells
        .chunks(columns.into())
        .map(|line| line.concat().trim_end().to_owned() + "\n")
        .collect()
}

fn press(view: &mut View, keys: &[KeyCode]) -> Wish {
    let press = |key: &KeyCode| view.press((*key).into());
    keys.iter().map(press).last().expect("keys")
}

/// The peers that a screen shows, in order.
fn peers(view: &mut View) -> Vec<String> {
    let screen = screen(view, 120, 24);
    let rows = screen.lines().skip(3).take_while(|line| !line.is_empty());
    let peer = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let peer = if words[1] == TICK { words[2] } else { words[1] };
        peer.rsplit('/').next().unwrap_or(peer).to_owned()
    };
    rows.map(peer).collect()
}

#[test]
fn a_screen_of_80_by_24_has_room_for_everything() {
    golden::assert("top-screen.txt", &screen(&mut view(), 80, 24));
}

#[test]
fn no_screen_is_too_small_to_draw_on() {
    for (columns, lines) in [(1, 1), (10, 2), (40, 5), (300, 100)] {
        screen(&mut view(), columns, lines);
    }
}

#[test]
fn before_time_has_passed_no_rate_is_made_up() {
    let (_, now) = graphs();
    let mut view = view();
    view.show(rows(&now, &now), now.uptime);
    let screen = screen(&mut view, 80, 24);
    assert!(screen.contains("13 open  - req/s"), "{screen}");
}

#[test]
fn keys_sort_and_reverse() {
    let mut view = view();
    assert_eq!(peers(&mut view), ["web", "198.18.0.9", "stock"]);
    press(&mut view, &[KeyCode::Left, KeyCode::Left]);
    assert_eq!(peers(&mut view), ["stock", "web", "198.18.0.9"]);
    press(&mut view, &[KeyCode::Char('r')]);
    assert_eq!(peers(&mut view), ["198.18.0.9", "web", "stock"]);
}

#[test]
fn what_is_typed_filters() {
    let mut view = view();
    let typed = ['/', 's', 't', 'q'].map(KeyCode::Char);
    // A letter that means something else elsewhere.
    assert_eq!(press(&mut view, &typed), Wish::GoOn);
    assert_eq!(peers(&mut view), Vec::<String>::new());
    press(&mut view, &[KeyCode::Backspace, KeyCode::Enter]);
    assert_eq!(peers(&mut view), ["stock"]);
    assert!(screen(&mut view, 120, 24).contains("with: st (Esc all)"));
    press(&mut view, &[KeyCode::Esc]);
    assert_eq!(peers(&mut view).len(), 3);
}

#[test]
fn a_pause_keeps_what_is_shown() {
    let mut view = view();
    press(&mut view, &[KeyCode::Char('p')]);
    view.show(Vec::new(), 200.0);
    assert_eq!(peers(&mut view).len(), 3);
    assert!(screen(&mut view, 80, 24).contains("paused"));
    press(&mut view, &[KeyCode::Char('p')]);
    view.show(Vec::new(), 200.0);
    assert_eq!(peers(&mut view).len(), 0);
}

#[test]
fn rows_beyond_the_screen_are_scrolled_to() {
    let mut view = view();
    let first = |view: &mut View| screen(view, 120, 5).lines().nth(3).map(str::to_owned);
    let top = first(&mut view);
    press(&mut view, &[KeyCode::Down; 9]);
    let bottom = first(&mut view);
    assert!(
        bottom.as_ref().is_some_and(|line| line.contains("stock")),
        "{bottom:?}"
    );
    // As often as down was of use.
    press(&mut view, &[KeyCode::Up; 2]);
    assert_eq!(first(&mut view), top);
}

#[test]
fn it_is_quit_by_q_and_by_control_c() {
    assert_eq!(press(&mut view(), &[KeyCode::Char('q')]), Wish::Quit);
    let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    let mut view = view();
    press(&mut view, &[KeyCode::Char('/')]);
    assert_eq!(view.press(control_c), Wish::Quit);
    assert_eq!(press(&mut view, &[KeyCode::Char('c')]), Wish::GoOn);
}

#[test]
fn a_sidecar_that_is_gone_is_told_of() {
    let mut view = view();
    view.tell("cannot connect to 127.0.0.1:4195".into());
    assert!(screen(&mut view, 80, 24).contains("\ncannot connect to 127.0.0.1:4195\n"));
    let (before, now) = graphs();
    view.show(rows(&before, &now), now.uptime);
    assert!(!screen(&mut view, 80, 24).contains("cannot"));
}

#[test]
fn colours_are_left_out_where_they_are_not_wanted() {
    let colours = |palette| {
        let mut view = View { palette, ..view() };
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).expect("in memory");
        terminal.draw(|frame| view.draw(frame)).expect("in memory");
        let cells = terminal.backend().buffer().content().iter();
        cells.filter(|cell| cell.fg != Color::Reset).count()
    };
    assert_eq!(colours(Palette::Plain), 0);
    assert_ne!(colours(Palette::Colours), 0);
}

#[test]
fn nothing_that_a_sidecar_says_commands_the_terminal() {
    let (before, mut now) = graphs();
    for edge in &mut now.edges {
        edge.peer = Some("spiffe://a/\x1b[2J\n\u{9b}".into());
    }
    let mut view = view();
    view.show(rows(&before, &now), now.uptime);
    for problem in [None, Some("\x1b]0;owned\x07")] {
        if let Some(problem) = problem {
            view.tell(problem.into());
        }
        let screen = screen(&mut view, 120, 24).replace('\n', "");
        assert!(!screen.contains(char::is_control), "{screen:?}");
    }
}
