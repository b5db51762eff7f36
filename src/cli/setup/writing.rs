//! From what is known to the files: where they go, that they pass `check`, and what is said of them.

use std::path::{Path, PathBuf};

use super::{
    super::{
        exit::{CommandError, Exit},
        output,
    },
    draft::ConfigDraft,
    proof,
    staging::{self, Audience, NewFile, Staging},
};
use crate::{config, secret::Secret};

/// Where everything goes.
#[derive(Debug)]
pub(super) struct SetupPlace {
    /// The configuration, which may be there already.
    pub(super) config: PathBuf,
    pub(super) dir: PathBuf,
    /// It is there.
    pub(super) is_beside: bool,
}

impl SetupPlace {
    /// By `-c` and `--out`.
    pub(super) fn find(config: Option<PathBuf>, out: Option<&Path>) -> Result<Self, CommandError> {
        let config = config::find(config);
        let Some(file) = config.file_name() else {
            return Err(CommandError::new(
                Exit::Usage,
                format_args!("{} is no name of a configuration", config.display()),
            ));
        };
        let dir = out
            .or_else(|| config.parent())
            .unwrap_or(Path::new(""))
            .to_owned();
        let config = dir.join(file);
        let is_beside = staging::is_there(&config);
        if is_beside {
            // Nobody answers a dozen questions to learn this.
            proof::there(&config)?;
        }
        staging::may_write(&dir)?;
        Ok(Self {
            config,
            dir,
            is_beside,
        })
    }

    /// A file there.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Whether somebody names the very file that would be made: then it is kept as it is.
    pub(super) fn has(&self, name: &str, given: &Path) -> bool {
        match (self.path(name).canonicalize(), given.canonicalize()) {
            (Ok(ours), Ok(theirs)) => ours == theirs,
            _ => false,
        }
    }

    /// Says something: beside a configuration standard output is for the text alone.
    pub(super) fn say(&self, text: impl std::fmt::Display) -> Result<(), CommandError> {
        if self.is_beside {
            output::complain(text);
            return Ok(());
        }
        output::line(text)
    }

    /// Writes the files, and then what names them; all or nothing.
    pub(super) fn write(&self, draft: &ConfigDraft, files: &[NewFile]) -> Result<(), CommandError> {
        let last = if self.is_beside {
            format!("{}.toml", draft.site.name)
        } else {
            let name = self.config.file_name().unwrap_or_default();
            name.to_string_lossy().into_owned()
        };
        let names = files.iter().map(|file| file.name.as_str());
        staging::all_free(&self.dir, names.chain([last.as_str()]))?;
        let mut staging = Staging::begin(&self.dir)?;
        for file in files {
            staging.add(file)?;
        }
        let proof = if self.is_beside {
            proof::beside(draft, &staging, &self.config)?
        } else {
            proof::whole(draft, &staging, &self.config)?
        };
        let text = if self.is_beside {
            draft.beside(&str::to_owned)
        } else {
            draft.whole(&str::to_owned)
        };
        staging.add(&NewFile {
            name: last,
            content: Secret::new(text.clone()),
            audience: Audience::Group,
        })?;
        for path in staging.finish()? {
            self.say(format_args!("made  {}", path.display()))?;
        }
        for note in proof.notes {
            output::complain(note);
        }
        if self.is_beside {
            output::line(text.trim_end())?;
            let place = if proof.route_first {
                "put its [[route]] before the others, since one of those takes everything, and its [[connector]] anywhere behind them"
            } else {
                "add this at its end"
            };
            output::complain(format_args!(
                "{} is there, and is not touched: {place}; then `postern check`",
                self.config.display()
            ));
        }
        Ok(())
    }

    /// Writes files that no configuration names yet.
    pub(super) fn write_files(&self, files: &[NewFile]) -> Result<(), CommandError> {
        staging::all_free(&self.dir, files.iter().map(|file| file.name.as_str()))?;
        let mut staging = Staging::begin(&self.dir)?;
        for file in files {
            staging.add(file)?;
        }
        for path in staging.finish()? {
            self.say(format_args!("made  {}", path.display()))?;
        }
        Ok(())
    }

    /// Whether a configuration would pass that names files which are not there yet, so that nobody learns it only when they are.
    pub(super) fn rehearse(
        &self,
        draft: &ConfigDraft,
        files: &[NewFile],
    ) -> Result<(), CommandError> {
        let mut staging = Staging::begin(&self.dir)?;
        for file in files {
            staging.add(file)?;
        }
        if self.is_beside {
            proof::beside(draft, &staging, &self.config)?;
        } else {
            proof::whole(draft, &staging, &self.config)?;
        }
        Ok(())
    }

    /// What comes next, once the configuration is there.
    pub(super) fn next(&self, name: &str) -> Result<(), CommandError> {
        if self.is_beside {
            return Ok(());
        }
        let at = if self.config == config::find(None) {
            String::new()
        } else {
            format!(" -c {}", self.config.display())
        };
        let doctor = format!("postern doctor{at}");
        let test = format!("postern test {name} --to ADDRESS{at}");
        self.say(format_args!(
            "\nNext: start the gateway (`systemctl start postern`, or `postern run{at}`), then\n  \
             {doctor:<width$}  every step on the way out\n  \
             {test}  one message, and the whole conversation",
            width = test.chars().count()
        ))
    }
}
