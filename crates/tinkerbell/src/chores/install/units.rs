//! The texts that let a service manager start the daemon.
//!
//! Pure: paths in, texts out; the files in `packaging/` are these texts for a binary in `/usr/bin`.
//! Invariant: keepers survive the daemon's end under every one of them.

use std::path::Path;

/// A file to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Its name.
    pub name: &'static str,
    /// Its text.
    pub text: String,
}

/// Where things are that a unit names.
#[derive(Debug, Clone, Copy)]
pub struct Paths<'a> {
    /// The binary.
    pub exe: &'a Path,
    /// The socket that clients look for.
    pub socket: &'a Path,
    /// `TINKERBELL_HOME`, where it is set.
    pub home: Option<&'a Path>,
}

/// What both services have in common. Keepers hold commands that outlive the daemon: only the main
/// process is ended, and the cgroup is the daemon's to divide.
const COMMON: &str = "\
Type=notify
NotifyAccess=main
ExecReload=/bin/kill -HUP $MAINPID
Restart=on-failure
RestartSec=1
KillMode=process
Delegate=yes
DelegateSubgroup=daemon
OOMPolicy=continue
WatchdogSec=60
TimeoutStartSec=90
TimeoutStopSec=30
LimitNOFILE=65536
";

const ABOUT: &str = "\
Documentation=man:tinkerbell(1) https://github.com/tinkerbell-agent/tinkerbell
";

/// In a unit a percent sign begins a specifier; a path with spaces is quoted.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string().replace('%', "%%").replace('\\', "\\\\").replace('"', "\\\"");
    if text.contains(char::is_whitespace) { format!("\"{text}\"") } else { text }
}

/// Units for one user: started at login, or by the first client.
#[must_use]
pub fn user(paths: Paths<'_>) -> Vec<Unit> {
    let home = paths.home.map(|home| format!("Environment=TINKERBELL_HOME={}\n", quoted(home))).unwrap_or_default();
    let service = format!(
        "[Unit]
Description=Tinkerbell, durable coding agents
{ABOUT}
[Service]
{COMMON}{home}ExecStart={exe} daemon start --foreground

[Install]
WantedBy=default.target
",
        exe = quoted(paths.exe)
    );
    let socket = format!(
        "[Unit]
Description=Tinkerbell's socket; the first client starts the daemon
{ABOUT}
[Socket]
ListenStream={socket}
SocketMode=0600
DirectoryMode=0700

[Install]
WantedBy=sockets.target
",
        // No quotes: the rest of the line is the path.
        socket = paths.socket.display().to_string().replace('%', "%%")
    );
    vec![Unit { name: "tinkerbell.service", text: service }, Unit { name: "tinkerbell.socket", text: socket }]
}

/// The unit for the whole machine, under a user of its own. What would break the sandbox of commands
/// (private users, a masked /proc, forbidden namespaces) is left out on purpose.
#[must_use]
pub fn system(exe: &Path) -> Vec<Unit> {
    let service = format!(
        "[Unit]
Description=Tinkerbell, durable coding agents
{ABOUT}After=network-online.target
Wants=network-online.target

[Service]
{COMMON}User=tinkerbell
Group=tinkerbell
ExecStart={exe} daemon start --foreground
Environment=HOME=/var/lib/tinkerbell XDG_CONFIG_HOME=/etc XDG_DATA_HOME=/var/lib XDG_STATE_HOME=/var/log XDG_CACHE_HOME=/var/cache XDG_RUNTIME_DIR=/run
StateDirectory=tinkerbell
StateDirectoryMode=0700
LogsDirectory=tinkerbell
LogsDirectoryMode=0700
CacheDirectory=tinkerbell
CacheDirectoryMode=0700
RuntimeDirectory=tinkerbell
RuntimeDirectoryMode=0700
RuntimeDirectoryPreserve=yes
UMask=0077
# Repositories that it may work on.
ReadWritePaths=-/srv/tinkerbell
MemoryMax=75%
TasksMax=8192
NoNewPrivileges=yes
ProtectSystem=strict
PrivateDevices=yes
ProtectClock=yes
ProtectHostname=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
CapabilityBoundingSet=
AmbientCapabilities=

[Install]
WantedBy=multi-user.target
",
        exe = quoted(exe)
    );
    let user = "# The user that the daemon runs as.\nu tinkerbell - \"Tinkerbell\" /var/lib/tinkerbell /bin/sh\n".to_owned();
    vec![Unit { name: "tinkerbell.service", text: service }, Unit { name: "tinkerbell.conf", text: user }]
}

/// The agent for one user of macOS.
#[must_use]
pub fn launchd(paths: Paths<'_>) -> Vec<Unit> {
    let home = paths.home.map_or_else(String::new, |home| {
        format!(
            "  <key>EnvironmentVariables</key>\n  <dict>\n    <key>TINKERBELL_HOME</key>\n    <string>{}</string>\n  </dict>\n",
            escaped(home)
        )
    });
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>
<!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">
<plist version=\"1.0\">
<dict>
  <key>Label</key>
  <string>dev.tinkerbell.daemon</string>
  <key>ProgramArguments</key>
  <array>
    <string>{exe}</string>
    <string>daemon</string>
    <string>start</string>
    <string>--foreground</string>
  </array>
{home}  <key>RunAtLoad</key>
  <true/>
  <key>KeepAlive</key>
  <dict>
    <key>SuccessfulExit</key>
    <false/>
  </dict>
  <key>AbandonProcessGroup</key>
  <true/>
  <key>ProcessType</key>
  <string>Adaptive</string>
</dict>
</plist>
",
        exe = escaped(paths.exe)
    );
    vec![Unit { name: "dev.tinkerbell.daemon.plist", text }]
}

fn escaped(path: &Path) -> String {
    path.display().to_string().replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
