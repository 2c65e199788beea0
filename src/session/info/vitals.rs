//! What the operating system says about this process. Absent figures (no `/proc`) are zero.

use std::fs;

/// Figures of the process.
#[derive(Clone, Debug, Default)]
pub struct Vitals {
    /// Resident memory in bytes.
    pub resident: u64,
    /// The most it has been.
    pub resident_peak: u64,
    /// Seconds of CPU time in user mode.
    pub cpu_user: f64,
    /// Seconds of CPU time in the kernel.
    pub cpu_system: f64,
    /// Memory of the machine in bytes.
    pub machine_memory: u64,
    /// The kernel's name and version.
    pub os: String,
}

/// Clock ticks a second in `/proc/self/stat`: Linux's USER_HZ, the same on every architecture we build for.
const TICKS: f64 = 100.0;

impl Vitals {
    /// Reads them.
    pub fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let (cpu_user, cpu_system) = cpu_seconds(&stat);
        Self {
            resident: kilobytes(&status, "VmRSS:"),
            resident_peak: kilobytes(&status, "VmHWM:"),
            cpu_user,
            cpu_system,
            machine_memory: kilobytes(&memory, "MemTotal:"),
            os: format!("Linux {} {}", release.trim(), std::env::consts::ARCH),
        }
    }
}

/// The value of a line `name   123 kB`, in bytes.
fn kilobytes(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    value.and_then(|value| value.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// utime and stime, the 14th and 15th field; the second, the program's name in parentheses, may hold blanks.
fn cpu_seconds(stat: &str) -> (f64, f64) {
    let behind_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut ticks = behind_name.split_whitespace().skip(11).map(|field| field.parse().unwrap_or(0.0) / TICKS);
    (ticks.next().unwrap_or(0.0), ticks.next().unwrap_or(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_texts_of_the_kernel_are_read() {
        assert_eq!(kilobytes("Name:\tx\nVmHWM:\t    10 kB\nVmRSS:\t     7 kB\n", "VmRSS:"), 7168);
        assert_eq!(kilobytes("", "VmRSS:"), 0);
        assert_eq!(cpu_seconds("7 (a ) b) S 1 2 3 4 5 6 7 8 9 10 150 25 0"), (1.5, 0.25));
        assert_eq!(cpu_seconds(""), (0.0, 0.0));
    }
}
