//! What pages are shown with: one sheet, one script, one file of icons. A hash stands in the name, so that a browser may keep them
//! for ever and still has those of the page at once.

/// One of them.
#[derive(Debug)]
pub(super) struct Asset {
    stem: &'static str,
    /// How its name ends.
    end: &'static str,
    hash: u64,
    /// Its media type.
    pub(super) kind: &'static str,
    /// All of it.
    pub(super) body: &'static str,
}

const ALL: [Asset; 3] = [
    asset("style", "css", "text/css", include_str!("style.css")),
    asset("window", "js", "text/javascript", include_str!("window.js")),
    asset("icons", "svg", "image/svg+xml", include_str!("icons.svg")),
];

const fn asset(
    stem: &'static str,
    end: &'static str,
    kind: &'static str,
    body: &'static str,
) -> Asset {
    let hash = fnv(body.as_bytes());
    Asset {
        stem,
        end,
        hash,
        kind,
        body,
    }
}

/// FNV-1a: nobody gains by a collision, and it is known when this is compiled.
const fn fnv(mut octets: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325;
    while let [first, rest @ ..] = octets {
        hash = (hash ^ *first as u64).wrapping_mul(0x0100_0000_01b3);
        octets = rest;
    }
    hash
}

impl Asset {
    /// Behind `/assets/`.
    fn name(&self) -> String {
        format!("{}-{:016x}.{}", self.stem, self.hash, self.end)
    }
}

/// By its name, hash and all.
pub(super) fn named(name: &str) -> Option<Asset> {
    ALL.into_iter().find(|asset| asset.name() == name)
}

/// The path of `style`, `window` or `icons`.
pub(super) fn path(stem: &str) -> String {
    let found = ALL.into_iter().find(|asset| asset.stem == stem);
    let name = found.map(|asset| asset.name()).unwrap_or_default();
    format!("/assets/{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_asset_is_found_by_its_path_and_by_no_other() {
        for stem in ["style", "window", "icons"] {
            let path = path(stem);
            let name = path.strip_prefix("/assets/").unwrap();
            assert_eq!(named(name).unwrap().stem, stem);
            assert!(named(&format!("{name}x")).is_none());
        }
        assert!(named("style.css").is_none());
    }
}
