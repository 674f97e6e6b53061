//! Line ends between the disk and git, as the user's configuration and attributes say.
//!
//! It is git's own conversion with every external filter taken out. Invariant: no program is ever
//! run, so a file under a `clean` or `smudge` filter passes through as its bytes are.

use crate::error::{Error, Result};
use crate::patterns::check_attributes;
use crate::trees::Leaves;
use gix::ObjectId;
use gix::bstr::{BStr, BString, ByteSlice};
use gix::filter::plumbing::pipeline::CrlfRoundTripCheck;
use gix::index::entry::{Flags, Mode, Stat};
use gix::objs::FindExt as _;
use gix::worktree::stack::state::attributes::Source;
use std::io::Read;

/// Files beyond this size are taken as binary: nobody edits their line ends.
pub const CONVERT_BYTES: u64 = 64 << 20;

/// A converter with the attributes of one tree.
pub struct LineEnds<'r> {
    pipeline: gix::filter::plumbing::Pipeline,
    stack: gix::worktree::Stack,
    objects: &'r gix::Repository,
}

impl<'r> LineEnds<'r> {
    /// Configuration from `user`, attributes from the `.gitattributes` among `files`, whose content
    /// `objects` holds.
    pub fn new(user: &gix::Repository, objects: &'r gix::Repository, files: &Leaves) -> Result<Self> {
        check_attributes((user, objects), files.iter().map(|(path, leaf)| (path.as_bstr(), leaf.id)))?;
        let index = attribute_index(user.object_hash(), files);
        let stack = user.attributes_only(&index, Source::IdMapping).map_err(Error::git("read attributes"))?.detach();
        let (pipeline, stack) = gix::filter::Pipeline::new(user, stack).map_err(Error::git("read line-end settings"))?.into_parts();
        let mut ends = Self { pipeline, stack, objects };
        let options = ends.pipeline.options_mut();
        options.drivers.clear();
        options.crlf_roundtrip_check = CrlfRoundTripCheck::Skip;
        Ok(ends)
    }

    /// The form that git stores. `before` is what git stores now at this path: a file committed
    /// with CRLF keeps it where the conversion is automatic.
    pub fn stored(&mut self, path: &BStr, bytes: &[u8], before: Option<ObjectId>) -> Result<Vec<u8>> {
        let objects = &self.objects.objects;
        let entry = self.stack.at_entry(path, None, objects).map_err(Error::io("read attributes", self.objects.path()))?;
        let native = gix::path::from_bstr(path).map_err(|e| Error::Git { what: "convert path", why: e.to_string() })?;
        let mut outcome = self
            .pipeline
            .convert_to_git(
                bytes,
                &native,
                &mut |_, attributes| {
                    entry.matching_attributes(attributes);
                },
                &mut |buffer| match before {
                    Some(id) => Ok(objects.find_blob(&id, buffer).map(|_| ()).ok()),
                    None => Ok(None),
                },
            )
            .map_err(Error::git("convert line ends"))?;
        let mut out = Vec::with_capacity(bytes.len());
        outcome.read_to_end(&mut out).map_err(Error::io("convert line ends", self.objects.path()))?;
        Ok(out)
    }

    /// The form that stands on disk.
    pub fn on_disk(&mut self, path: &BStr, bytes: &[u8]) -> Result<Vec<u8>> {
        let entry = self.stack.at_entry(path, None, &self.objects.objects).map_err(Error::io("read attributes", self.objects.path()))?;
        let mut outcome = self
            .pipeline
            .convert_to_worktree(
                bytes,
                path,
                &mut |_, attributes| {
                    entry.matching_attributes(attributes);
                },
                gix::filter::plumbing::pipeline::convert::to_worktree::Options::default(),
            )
            .map_err(Error::git("convert line ends"))?;
        let mut out = Vec::with_capacity(bytes.len());
        outcome.read_to_end(&mut out).map_err(Error::io("convert line ends", self.objects.path()))?;
        Ok(out)
    }
}

/// Which of the paths stand under an external filter, with its name: what was not run is told.
pub fn filtered<'p>(user: &gix::Repository, files: &Leaves, paths: impl Iterator<Item = &'p BString>) -> Result<Vec<(BString, String)>> {
    check_attributes((user, user), files.iter().map(|(path, leaf)| (path.as_bstr(), leaf.id)))?;
    let index = attribute_index(user.object_hash(), files);
    let mut stack = user.attributes_only(&index, Source::IdMapping).map_err(Error::git("read attributes"))?;
    let mut found = stack.selected_attribute_matches(["filter"]);
    let mut out = Vec::new();
    for path in paths {
        let entry = stack.at_entry(path.as_bstr(), None).map_err(Error::git("read attributes"))?;
        found.reset();
        entry.matching_attributes(&mut found);
        for hit in found.iter_selected() {
            if let gix::attrs::StateRef::Value(name) = hit.assignment.state {
                out.push((path.clone(), name.as_bstr().to_str_lossy().into_owned()));
            }
        }
    }
    Ok(out)
}

/// An index of nothing but the attribute files: the matcher finds them through it.
fn attribute_index(hash: gix::hash::Kind, files: &Leaves) -> gix::index::State {
    let mut index = gix::index::State::new(hash);
    let is_attributes = |path: &BString| path == ".gitattributes" || path.ends_with(b"/.gitattributes");
    for (path, leaf) in files.iter().filter(|(path, _)| is_attributes(path)) {
        index.dangerously_push_entry(Stat::default(), leaf.id, Flags::empty(), Mode::FILE, path.as_ref());
    }
    index.sort_entries();
    index
}
