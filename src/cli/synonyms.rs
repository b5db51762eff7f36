//! Words of other programs for our commands: `delete` is `drop`, `flush` is `retry`.
//!
//! clap's own guess goes by letters alone: to it `delete` looks like `release`, which sends what was to be deleted.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Puts the command that was meant into an error about an unknown one.
pub(super) fn explain(error: &mut clap::Error) {
    if error.kind() != ErrorKind::InvalidSubcommand {
        return;
    }
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand) else {
        return;
    };
    let of_queue = error
        .get(ContextKind::Usage)
        .is_some_and(|usage| usage.to_string().contains("postern queue"));
    let Some(meant) = meant(&word.to_ascii_lowercase(), of_queue) else {
        return;
    };
    error.insert(
        ContextKind::SuggestedSubcommand,
        ContextValue::Strings(vec![meant.to_owned()]),
    );
}

fn meant(word: &str, of_queue: bool) -> Option<&'static str> {
    let verb = match word {
        "delete" | "del" | "rm" | "remove" | "purge" | "discard" | "cancel" | "kill" | "erase"
        | "clear" | "clean" | "remove-all" | "delete-all" => ["drop", "queue drop"],
        "flush" | "requeue" | "kick" | "resend" | "deliver" | "redeliver" | "send-now" | "push"
        | "process" | "run-queue" | "runq" => ["retry", "queue retry"],
        "ls" | "mailq" | "print" | "dump-queue" | "all" => ["list", "queue list"],
        "pause" | "suspend" | "freeze" | "defer" | "stop-delivery" => ["hold", "queue hold"],
        "unhold" | "resume" | "thaw" | "unfreeze" | "unpause" | "continue" => {
            ["release", "queue release"]
        }
        "bounce" | "giveup" | "give-up" | "abandon" | "expire" => ["fail", "queue fail"],
        "view" | "cat" | "get" | "info" | "inspect" => ["show", "queue show"],
        "save" | "extract" | "download" | "copy" => ["export", "queue export"],
        "send" if of_queue => return Some("retry"),
        _ if of_queue => return None,
        "list" | "show" | "retry" | "hold" | "release" | "drop" | "fail" | "export" => {
            return Some(match word {
                "list" => "queue list",
                "show" => "queue show",
                "retry" => "queue retry",
                "hold" => "queue hold",
                "release" => "queue release",
                "drop" => "queue drop",
                "fail" => "queue fail",
                _ => "queue export",
            });
        }
        "start" | "serve" | "server" | "daemon" | "up" => return Some("run"),
        "validate" | "verify" | "lint" | "configtest" | "config-test" | "checkconfig" => {
            return Some("check");
        }
        "restart" | "rehash" | "hup" | "refresh" => return Some("reload"),
        "history" | "log" | "logs" | "track" | "find" | "search" => return Some("trace"),
        "health" | "stat" | "state" | "ps" => return Some("status"),
        "why" | "simulate" | "dry-run" => return Some("explain"),
        "passwd" | "password" | "hash" | "mkpasswd" => return Some("hash-password"),
        "certificate" | "certificates" | "certs" | "tls" => return Some("cert"),
        "init" | "configure" | "wizard" | "quickstart" | "set-up" => return Some("setup"),
        "mail" | "mailx" => return Some("send"),
        "convert" | "migrate" | "migration" | "postfix" | "msmtp" | "smtp2graph" | "iis" => {
            return Some("import");
        }
        _ => return None,
    };
    let [inside, outside] = verb;
    Some(if of_queue { inside } else { outside })
}

#[cfg(test)]
mod tests {
    use super::meant;

    #[test]
    fn nothing_that_takes_away_becomes_something_that_sends() {
        for word in ["delete", "rm", "remove", "purge", "cancel"] {
            assert_eq!(meant(word, true), Some("drop"), "{word}");
            assert_eq!(meant(word, false), Some("queue drop"), "{word}");
        }
        assert_eq!(meant("flush", true), Some("retry"));
        assert_eq!(meant("ls", true), Some("list"));
        assert_eq!(meant("mailq", false), Some("queue list"));
        assert_eq!(meant("list", false), Some("queue list"));
        assert_eq!(meant("start", false), Some("run"));
        assert_eq!(meant("start", true), None);
        assert_eq!(meant("nonsense", false), None);
    }
}
