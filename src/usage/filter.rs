//! Which dimensions count.

use crate::pg::jsonb::Item;

/// An object of texts, or arrays of texts of which one is enough, that dimensions must have.
pub struct Filter<'a>(Vec<(&'a str, Vec<&'a str>)>);

impl<'a> Filter<'a> {
    /// Whatever is no text is had by no dimensions, which are texts.
    pub fn of(object: Item<'a>) -> Filter<'a> {
        let mut keys = Vec::new();
        if let Item::Object(entries) = object {
            entries.entries(|key, wanted| {
                let mut texts = Vec::new();
                match wanted {
                    Item::Text(text) => texts.push(text),
                    Item::Array(array) => array.elements(|element| {
                        if let Item::Text(text) = element {
                            texts.push(text);
                        }
                    }),
                    _ => {}
                }
                keys.push((key, texts));
            });
        }
        Filter(keys)
    }

    pub fn keys(&self) -> impl Iterator<Item = &'a str> {
        self.0.iter().map(|(key, _)| *key)
    }

    /// Whether these dimensions, or none, have what is wanted.
    pub fn admits(&self, dimensions: Option<Item<'_>>) -> bool {
        self.0.iter().all(|(key, texts)| {
            let mut found = false;
            if let Some(Item::Object(entries)) = dimensions {
                entries.entries(|had, item| {
                    if let Item::Text(text) = item {
                        found |= had == *key && texts.contains(&text);
                    }
                });
            }
            found
        })
    }
}
