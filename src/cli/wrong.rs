//! What is wrong with a command line or its environment, said of the one that is to blame.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command, CommandFactory, Parser};
use helve_domain::plain;

use super::Cli;

/// How our variables begin.
const OURS: &str = concat!("HELVE", "_");
/// What follows in those that no flag reads: variables of clients, of builds, of tests and of examples.
const OTHERS: [&str; 7] = ["URL", "TOKEN", "SOCKET_URL", "FAILPOINTS", "PANIC_ON_INVARIANT", "UPDATE", "BUILD_COMMIT"];

/// Reads the command line, or ends the program.
pub(super) fn parse() -> Cli {
    let words: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    Cli::try_parse().unwrap_or_else(|error| blame(error, &words).exit())
}

/// Ends the program because of what was asked of it, with the usage of the command that was asked.
pub(super) fn usage(wrong: String) -> ! {
    let mut program = Cli::command();
    program.build();
    let words: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    asked(&program, &words).clone().error(ErrorKind::ValueValidation, wrong).exit()
}

/// The command that these words ask for.
fn asked<'c>(program: &'c Command, words: &[String]) -> &'c Command {
    words.iter().skip(1).fold(program, |command, word| command.find_subcommand(word).unwrap_or(command))
}

/// The parser names the flag, also where the value came from the environment.
fn blame(mut error: clap::Error, words: &[String]) -> clap::Error {
    let Some(ContextValue::String(shown)) = error.get(ContextKind::InvalidArg) else { return error };
    let flag = shown.split([' ', '=']).next().unwrap_or_default().to_owned();
    let given = words.iter().any(|word| *word == flag || word.strip_prefix(&flag).is_some_and(|r| r.starts_with('=')));
    let program = Cli::command();
    let is_it = |arg: &&Arg| arg.get_long().is_some_and(|long| flag.strip_prefix("--") == Some(long));
    let arg = asked(&program, words).get_arguments().chain(program.get_arguments()).find(is_it);
    if let (false, Some(name)) = (given, arg.and_then(Arg::get_env)) {
        let text = format!("{} of the environment", name.to_string_lossy());
        error.insert(ContextKind::InvalidArg, ContextValue::String(text));
    }
    error
}

/// A word on each variable that looks like one of ours and is none: a slip in a name would change nothing, silently.
pub(super) fn misspelt() -> Vec<String> {
    let given = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let mut told: Vec<_> = given.filter_map(|name| told_of(&name, &known())).collect();
    told.sort();
    told
}

/// Every variable that means something.
fn known() -> Vec<String> {
    fn of(command: &Command, names: &mut Vec<String>) {
        let variables = command.get_arguments().filter_map(Arg::get_env);
        names.extend(variables.map(|name| name.to_string_lossy().into_owned()));
        command.get_subcommands().for_each(|sub| of(sub, names));
    }
    let mut names: Vec<String> = OTHERS.map(|other| format!("{OURS}{other}")).into();
    of(&Cli::command(), &mut names);
    names
}

fn told_of(name: &str, known: &[String]) -> Option<String> {
    // A Kubernetes service of the name `helve` sets these in every pod.
    let is_of_a_service = name.contains("_SERVICE_") || name.contains("_TCP") || name == "HELVE_PORT";
    if !name.starts_with(OURS) || is_of_a_service || known.iter().any(|known| known == name) {
        return None;
    }
    let meant = plain::meant(name, known.iter().map(String::as_str));
    let hint = meant.map(|meant| format!(": did you mean {meant}?")).unwrap_or_default();
    Some(format!("{name} is set, and Helve knows no such variable{hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn the_usage_is_that_of_the_command_that_was_asked() {
        let mut program = Cli::command();
        program.build();
        for (line, name) in [
            ("helve serve --listen x", "serve"),
            ("helve --log info token list", "list"),
            ("helve frobnicate", "helve"),
        ] {
            assert_eq!(asked(&program, &words(line)).get_name(), name, "{line}");
        }
    }

    #[test]
    fn a_slip_in_the_name_of_a_variable_is_told() {
        let known = known();
        let told = |rest: &str| told_of(&format!("{OURS}{rest}"), &known);
        let slip = told("SCHEDULNG_GRACE").unwrap();
        assert!(slip.ends_with("SCHEDULING_GRACE?"), "{slip}");
        assert!(told("COLOUR_OF_THE_SHED").unwrap().ends_with("no such variable"));
        for fine in ["URL", "LISTEN", "LOG", "SERVICE_HOST", "PORT_7733_TCP_ADDR"] {
            assert_eq!(told(fine), None, "{fine}");
        }
        assert_eq!(told_of("HOME", &known), None);
    }
}
