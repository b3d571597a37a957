//! Mails as they arrive: in a folder, or at an SMTP server of the tests' own (aiosmtpd).

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The mails in a folder, oldest first.
pub fn mails(folder: &Path) -> Vec<String> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = files.filter(|f| f.extension().is_some_and(|e| e == "eml")).collect();
    files.sort();
    files.iter().map(|file| std::fs::read_to_string(file).unwrap().replace("\r\n", "\n")).collect()
}

pub fn to<'a>(mails: &'a [String], address: &str, subject: &str) -> Vec<&'a String> {
    let wanted = [format!("To: {address}\n"), format!("Subject: {subject}\n")];
    mails.iter().filter(|m| wanted.iter().all(|w| m.contains(w.as_str()))).collect()
}

/// aiosmtpd, gone with the value.
pub struct Smtp(Child);

impl Smtp {
    pub fn start(python: &str, port: u16, folder: &Path, run: u32) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/smtp_sink.py");
        let mut command = Command::new(python);
        command.arg(script).arg(port.to_string()).arg(folder).arg(run.to_string());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self(child)
    }
}

impl Drop for Smtp {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
