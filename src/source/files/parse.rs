//! The text of one file as readings, document by document. Documents whose text
//! is as before are not read again.

use crate::{
    base::ObjectKey,
    inputs::{
        fact::Age,
        read::{self, Reading},
    },
    yaml::{self, Chunk, YamlError},
};
use std::{collections::HashMap, ops::Range};

/// A file's text, read.
#[derive(Default)]
pub(super) struct Parsed {
    bytes: Vec<u8>,
    documents: Box<[Document]>,
    /// The text as a whole is none we read.
    error: Option<YamlError>,
}

#[derive(Clone)]
struct Document {
    /// Where its chunk stands in `bytes`.
    range: Range<usize>,
    /// The line its chunk begins on, from 1.
    line: u32,
    /// The line of its content counted from its chunk's, and what it says.
    /// Lines in the error are counted so too.
    content: Result<(u32, Vec<Reading>), YamlError>,
}

impl Parsed {
    /// Reads a text; documents that `before` has too are taken from there.
    pub(super) fn new(
        bytes: Vec<u8>,
        before: Option<&Self>,
        limits: &yaml::Limits,
        first_seen: &dyn Fn(&ObjectKey) -> Age,
    ) -> Self {
        let mut parsed = Self { bytes: Vec::new(), documents: Box::default(), error: None };
        let text = match yaml::text(&bytes, limits) {
            Ok(text) => text,
            Err(error) => return Self { error: Some(error), bytes, ..parsed },
        };
        let skipped = bytes.len() - text.len();
        let chunks = match yaml::chunks(text, limits) {
            Ok(chunks) => chunks,
            Err(error) => return Self { error: Some(error), bytes, ..parsed },
        };
        let known: HashMap<&[u8], &Document> = before
            .into_iter()
            .flat_map(|before| before.documents.iter().map(|doc| (&before.bytes[doc.range.clone()], doc)))
            .collect();
        let mut documents = Vec::new();
        for chunk in chunks {
            let start = skipped + chunk.start;
            let range = start..start + chunk.text.len();
            let content = match known.get(chunk.text.as_bytes()) {
                Some(document) => document.content.clone(),
                None => read_document(chunk, limits, first_seen),
            };
            documents.push(Document { range, line: chunk.line, content });
        }
        parsed.documents = documents.into();
        parsed.bytes = bytes;
        parsed
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
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
