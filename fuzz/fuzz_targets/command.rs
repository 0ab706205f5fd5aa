//! A command line, with any extension offered or not: it is read or refused, and what is read can be
//! written on the wire and is then read as the same.
#![no_main]

use lazaret_fuzz::mail::{Address, Mail, Recipient};
use lazaret_fuzz::smtp::command::{Command, Offered, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some(([flags], line)) = lazaret_fuzz::script::<1>(input) else { return };
    let is_set = |bit: u8| flags & (1 << bit) != 0;
    let offered = Offered {
        esmtp: is_set(0),
        binary_mime: is_set(1),
        dsn: is_set(2),
        require_tls: is_set(3),
        prdr: is_set(4),
        auth: is_set(5),
    };
    let smtputf8 = is_set(6);
    match parse(line, &offered, smtputf8) {
        Err(error) => assert!(error.reply().code() >= 400),
        Ok(Command::Mail(Mail { reverse_path: Some(address), smtputf8, .. })) => {
            same(&address, "MAIL FROM:", smtputf8, &offered);
        }
        Ok(Command::Rcpt(Recipient { address, .. })) => same(&address, "RCPT TO:", smtputf8, &offered),
        Ok(_) => {}
    }
});

fn same(address: &Address, verb: &str, smtputf8: bool, offered: &Offered) {
    let path = address.to_path();
    assert!(!path.contains(['\r', '\n', '\0']), "{path:?}");
    let parameter = if verb == "MAIL FROM:" && smtputf8 { " SMTPUTF8" } else { "" };
    let line = format!("{verb}<{path}>{parameter}");
    let again = match parse(line.as_bytes(), offered, smtputf8) {
        Ok(Command::Mail(Mail { reverse_path: Some(again), .. })) => again,
        Ok(Command::Rcpt(Recipient { address: again, .. })) => again,
        other => panic!("{line:?} is read as {other:?}"),
    };
    assert_eq!(again.to_path(), path);
}
