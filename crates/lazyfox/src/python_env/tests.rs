use super::*;

/// A shell script that answers like Python: `-c` with what it is, `-m venv` by copying itself, and
/// `-m pip` by noting its arguments. Files beside the first copy say how it should behave.
const FAKE: &str = r#"#!/bin/sh
root=ROOT
case "$1 $2" in
"-c "*)
    echo "a greeting of the installation"
    prefix=/usr; venv=true
    [ -e "$root/in-venv" ] && prefix=/my/env
    [ -e "$root/no-venv" ] && venv=false
    printf '{"executable":"%s","prefix":"%s","base_prefix":"/usr",' "$0" "$prefix"
    printf '"version":"3.99.1 (fake)","can_make_venv":%s}\n' "$venv"
    ;;
"-m venv")
    echo venv >> "$root/calls"
    mkdir -p "$3/bin" && cp "$0" "$3/bin/python"
    ;;
"-m pip")
    shift 2
    echo "pip $*" >> "$root/calls"
    echo "Collecting runpod"
    [ ! -e "$root/no-network" ] || { echo "ERROR: no route to host" >&2; exit 1; }
    ;;
esac
"#;

struct Place {
    dir: tempfile::TempDir,
    python: String,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let python = dir.path().join("python").display().to_string();
        let text = dir.path().join("python.txt");
        fs::write(
            &text,
            FAKE.replace("ROOT", &dir.path().display().to_string()),
        )
        .unwrap();
        // Copied by another process: a file that this one has open for writing cannot be run, and a
        // test beside this one may just be forking, and have it open as well.
        let script = "cp \"$0\" \"$1\" && chmod +x \"$1\"";
        let made = Command::new("sh")
            .args(["-c", script])
            .arg(text)
            .arg(&python)
            .status();
        assert!(made.unwrap().success());
        Self { dir, python }
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join(name), text).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.dir.path().join(name)).unwrap();
    }

    /// What the interpreter was asked to do since the last look.
    fn calls(&self) -> Vec<String> {
        let calls = self.dir.path().join("calls");
        let text = fs::read_to_string(&calls).unwrap_or_default();
        let _ = fs::remove_file(calls);
        let root = self.dir.path().display().to_string();
        text.lines()
            .map(|line| {
                line.replace(&root, "ROOT")
                    .replace("--quiet --disable-pip-version-check --no-input ", "")
            })
            .collect()
    }

    fn prepare(&self) -> (anyhow::Result<PythonEnv>, Vec<String>) {
        let handler = self.dir.path().join("handler.py");
        let envs = self.dir.path().join("envs");
        let request = Request {
            handler: &handler,
            requirements: None,
            envs_dir: &envs,
            python: Some(&self.python),
        };
        let mut said = Vec::new();
        let prepared = prepare(&request, |line| said.push(line.to_owned()));
        (prepared, said)
    }

    fn error(&self) -> String {
        format!("{:#}", self.prepare().0.unwrap_err())
    }
}

#[test]
fn an_environment_is_made_once_and_used_again() {
    let place = Place::new();
    let (first, said) = place.prepare();
    let first = first.unwrap();
    assert!(first.python.is_absolute() && first.python.exists());
    assert!(
        said.iter()
            .any(|line| line.contains("making a Python 3.99.1")),
        "{said:?}"
    );
    assert!(
        said.iter().any(|line| line.contains("installing runpod")),
        "{said:?}"
    );
    assert!(
        said.iter().all(|line| line != "Collecting runpod"),
        "{said:?}"
    );
    assert_eq!(place.calls(), ["venv", "pip install runpod"]);

    let (second, said) = place.prepare();
    assert_eq!(second.unwrap(), first);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(place.calls().is_empty());
}

#[test]
fn other_requirements_are_another_environment() {
    let place = Place::new();
    place.write("requirements.txt", "runpod==1\n");
    let first = place.prepare().0.unwrap();
    assert_eq!(
        place.calls(),
        ["venv", "pip install -r ROOT/requirements.txt"]
    );
    place.write("requirements.txt", "runpod==2\n");
    assert_ne!(place.prepare().0.unwrap(), first);
    assert_eq!(place.calls().len(), 2);
    place.write("requirements.txt", "runpod==1\n");
    assert_eq!(place.prepare().0.unwrap(), first);
    assert!(place.calls().is_empty());
}

#[test]
fn a_half_made_environment_is_made_again() {
    let place = Place::new();
    place.write("no-network", "");
    let error = place.error();
    assert!(
        error.contains("pip") && error.contains("ERROR: no route to host"),
        "{error}"
    );
    assert_eq!(place.calls().len(), 2);

    place.remove("no-network");
    let (prepared, said) = place.prepare();
    assert!(prepared.unwrap().python.exists());
    assert!(
        said.iter().any(|line| line.contains("starting over")),
        "{said:?}"
    );
    assert_eq!(place.calls(), ["venv", "pip install runpod"]);
}

#[test]
fn an_environment_whose_interpreter_is_gone_is_made_again() {
    let place = Place::new();
    fs::remove_file(place.prepare().0.unwrap().python).unwrap();
    place.calls();
    assert!(place.prepare().0.unwrap().python.exists());
    assert_eq!(place.calls().len(), 2);
}

#[test]
fn an_environment_of_the_users_own_is_used_as_it_is() {
    let place = Place::new();
    place.write("in-venv", "");
    let (prepared, said) = place.prepare();
    assert_eq!(prepared.unwrap().python.display().to_string(), place.python);
    assert_eq!(said, ["using the virtual environment /my/env as it is"]);
    assert!(place.calls().is_empty());
}

#[test]
fn failures_say_what_to_do() {
    let mut place = Place::new();
    place.write("no-venv", "");
    let error = place.error();
    assert!(error.contains("apt install python3-venv"), "{error}");
    assert!(
        !place
            .dir
            .path()
            .join("envs")
            .read_dir()
            .unwrap()
            .any(|entry| { entry.unwrap().path().is_dir() })
    );

    place.python = "/bin/false".to_owned();
    let error = place.error();
    assert!(
        error.contains("/bin/false") && error.contains("does not work"),
        "{error}"
    );
    place.python = "/bin/echo".to_owned();
    let error = place.error();
    assert!(
        error.contains("/bin/echo") && error.contains("does not answer"),
        "{error}"
    );
    place.python = "no-such-python".to_owned();
    let error = place.error();
    assert!(
        error.contains("no-such-python") && error.contains("--python"),
        "{error}"
    );
}

#[test]
fn environments_are_shared_unless_paths_tell_them_apart() {
    let interpreter = Interpreter {
        executable: "/usr/bin/python3".into(),
        prefix: "/usr".into(),
        base_prefix: "/usr".into(),
        version: "3.99".to_owned(),
        can_make_venv: true,
    };
    let key = |dir: &str, text: &str| {
        let file = Some(Path::new(dir).join("requirements.txt"));
        Requirements {
            text: text.to_owned(),
            file,
        }
        .key(&interpreter)
    };
    assert_eq!(key("/a", "runpod\n").len(), 12);
    assert_eq!(key("/a", "# a/b\nrunpod\n"), key("/b", "# a/b\nrunpod\n"));
    assert_ne!(key("/a", "-e .\n"), key("/b", "-e .\n"));
    assert_ne!(key("/a", "runpod\n"), key("/a", "torch\n"));
}
