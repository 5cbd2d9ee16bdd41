//! An endpoint of a test's configuration.

use std::path::Path;

use serde_json::Value;

use super::MARK;
use crate::sdk;

/// An endpoint of the configuration file.
pub(crate) struct Endpoint {
    id: &'static str,
    command: Vec<String>,
    env: Vec<(&'static str, String)>,
    settings: Vec<(&'static str, u64)>,
    /// Whether the SDK is told to leave its own checks out.
    checks_are_off: bool,
}

impl Endpoint {
    /// An endpoint with at most one worker, which runs a file of `handlers` with this SDK version.
    pub(crate) fn new(id: &'static str, version: &str, handler: &str) -> Self {
        let handler = sdk::file(&format!("handlers/{handler}"));
        Self::program(id, &[&sdk::python(version), &handler])
    }

    /// An endpoint with at most one worker, which is any program.
    pub(crate) fn program(id: &'static str, command: &[&str]) -> Self {
        Self {
            id,
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            env: vec![],
            settings: vec![],
            checks_are_off: true,
        }
        .set("workers_min", 0)
        .set("workers_max", 1)
    }

    pub(crate) fn id(&self) -> &'static str {
        self.id
    }

    /// Adds a variable to the worker's environment.
    pub(crate) fn env(mut self, name: &'static str, value: &str) -> Self {
        self.env.push((name, value.to_owned()));
        self
    }

    /// Sets a number of the endpoint's configuration.
    pub(crate) fn set(mut self, name: &'static str, value: u64) -> Self {
        self.settings.retain(|(known, _)| *known != name);
        self.settings.push((name, value));
        self
    }

    /// Leaves it to the server to tell the SDK which of its own checks to leave out.
    pub(crate) fn checked(mut self) -> Self {
        self.checks_are_off = false;
        self
    }

    pub(super) fn toml(&self, home: &Path, mark: &str) -> String {
        let home = home.to_str().expect("the temporary folder's path is UTF-8");
        let mut env = vec![
            (MARK, mark.to_owned()),
            // A credential in ~/.runpod would replace the one that the server gives its worker.
            ("HOME", home.to_owned()),
            // The checkout stays as it is.
            ("PYTHONDONTWRITEBYTECODE", "1".to_owned()),
            // The default is DEBUG, which would push everything of interest out of a log's tail.
            ("RUNPOD_LOG_LEVEL", "INFO".to_owned()),
        ];
        if self.checks_are_off {
            // They want the Internet, 4 GB and a tenth of the disk.
            env.push(("RUNPOD_SKIP_AUTO_SYSTEM_CHECKS", "true".to_owned()));
            env.push(("RUNPOD_SKIP_GPU_CHECK", "true".to_owned()));
        }
        env.extend(self.env.iter().cloned());
        let env: Vec<String> = env
            .iter()
            .map(|(name, value)| format!("{name} = {}", quoted(value)))
            .collect();
        let command: Vec<String> = self.command.iter().map(|word| quoted(word)).collect();

        let mut text = format!(
            "[endpoints.{}]\ncommand = [{}]\nworking_dir = {}\nenv = {{ {} }}\n",
            self.id,
            command.join(", "),
            quoted(home),
            env.join(", "),
        );
        for (name, value) in &self.settings {
            text.push_str(&format!("{name} = {value}\n"));
        }
        text
    }
}

/// A TOML basic string: for paths and words its escapes are those of JSON.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}
