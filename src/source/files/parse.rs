//! The text of one file as readings, document by document. Documents whose text
//! is as before are not read again.

use super::print::Print;
use crate::{
    base::{ObjectKey, Version},
    inputs::{
        fact::Age,
        read::{self, Reading},
    },
    yaml::{self, Chunk, YamlError},
};
use std::collections::HashMap;

/// A file's text, read.
#[derive(Default)]
pub(super) struct Parsed {
    print: Print,
    documents: Box<[Document]>,
    /// The text as a whole is none we read.
    error: Option<YamlError>,
}

#[derive(Clone)]
struct Document {
    /// Of its chunk's text.
    text: Version,
    /// The line its chunk begins on, from 1.
    line: u32,
    /// The line of its content counted from its chunk's, and what it says.
    /// Lines in the error are counted so too.
    content: Result<(u32, Vec<Reading>), YamlError>,
}

impl Parsed {
    /// Reads a text; documents that `before` has too are taken from there.
    pub(super) fn new(
        bytes: &[u8],
        print: Print,
        before: Option<&Self>,
        limits: &yaml::Limits,
        first_seen: &dyn Fn(&ObjectKey) -> Age,
    ) -> Self {
        let chunks = match yaml::text(bytes, limits).and_then(|text| yaml::chunks(text, limits)) {
            Ok(chunks) => chunks,
            Err(error) => return Self { print, documents: Box::default(), error: Some(error) },
        };
        let before = before.into_iter().flat_map(|before| &before.documents);
        let known: HashMap<Version, &Document> = before.map(|document| (document.text, document)).collect();
        let mut documents = Vec::new();
        for chunk in chunks {
            let (line, text) = (chunk.line, Version::of(chunk.text));
            let content = match known.get(&text) {
                Some(document) => document.content.clone(),
                None => read_document(chunk, limits, first_seen),
            };
            documents.push(Document { text, line, content });
        }
        Self { print, documents: documents.into(), error: None }
    }

    pub(super) fn print(&self) -> &Print {
        &self.print
    }

    /// Every reading with its line, and every error with its own.
    pub(super) fn readings(&self) -> impl Iterator<Item = Result<(u32, &Reading), YamlError>> {
        let whole = self.error.iter().map(|error| Err(error.clone()));
        whole.chain(self.documents.iter().flat_map(|document| {
            let (read, error) = match &document.content {
                Ok((line, readings)) => (Some((document.line + line - 1, readings)), None),
                Err(error) => {
                    let line = document.line + error.line.max(1) - 1;
                    (None, Some(YamlError { line, ..error.clone() }))
                }
            };
            let read =
                read.into_iter().flat_map(|(line, readings)| readings.iter().map(move |r| Ok((line, r))));
            read.chain(error.map(Err))
        }))
    }
}

fn read_document(
    chunk: Chunk<'_>,
    limits: &yaml::Limits,
    first_seen: &dyn Fn(&ObjectKey) -> Age,
) -> Result<(u32, Vec<Reading>), YamlError> {
    let Some(document) = yaml::document(Chunk { line: 1, ..chunk }, limits)? else {
        return Ok((1, Vec::new()));
    };
    let yaml::Document { line, value } = document;
    let objects = read::objects(value);
    Ok((line, objects.iter().map(|object| read::read(object, first_seen)).collect()))
}
