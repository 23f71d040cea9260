//! Numbered pages, as the lists of namespaces and accounts have them.
//!
//! Knows nothing of what is listed.

use serde::Serialize;

use super::error::RequestError;
use super::query::Query;

/// Most items a page may hold.
const PER_PAGE_MAX: usize = 1000;
/// Highest page number taken. Pages beyond the end are empty: clients ask on until they see one.
const PAGE_MAX: usize = 1_000_000;

/// Which page of a list is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Paging {
    page: usize,
    per_page: usize,
}

/// `result_info` of a page.
#[derive(Serialize)]
pub(crate) struct PageInfo {
    page: usize,
    per_page: usize,
    count: usize,
    total_count: usize,
    total_pages: usize,
}

impl Paging {
    pub(crate) fn from_query(query: Query<'_>, per_page_default: usize) -> Result<Self, RequestError> {
        Ok(Self {
            page: query.number("page", 1..=PAGE_MAX)?.unwrap_or(1),
            per_page: query.number("per_page", 1..=PER_PAGE_MAX)?.unwrap_or(per_page_default),
        })
    }

    pub(crate) fn slice<T>(self, items: &[T]) -> &[T] {
        let start = ((self.page - 1) * self.per_page).min(items.len());
        let end = (start + self.per_page).min(items.len());
        items.get(start..end).unwrap_or_default()
    }

    pub(crate) fn info(self, count: usize, total_count: usize) -> PageInfo {
        let Self { page, per_page } = self;
        PageInfo { page, per_page, count, total_count, total_pages: total_count.div_ceil(per_page) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paging(query: &str) -> Result<Paging, RequestError> {
        Paging::from_query(Query::new(Some(query)), 20)
    }

    #[test]
    fn pages_cover_the_list_and_then_are_empty() {
        let items: Vec<u32> = (0..45).collect();
        let page = |query| paging(query).expect("valid").slice(&items).to_vec();
        assert_eq!(page(""), (0..20).collect::<Vec<_>>());
        assert_eq!(page("page=3"), (40..45).collect::<Vec<_>>());
        assert_eq!(page("page=4"), [0u32; 0]);
        assert_eq!(page("page=1000000&per_page=1000"), [0u32; 0]);
        assert_eq!(page("per_page=45&page=2"), [0u32; 0]);
        let info = paging("page=3").expect("valid").info(5, 45);
        assert_eq!((info.total_pages, info.count), (3, 5));
    }

    #[test]
    fn bad_numbers_are_refused() {
        for bad in ["page=0", "page=x", "page=-1", "page=1000001", "per_page=0", "per_page=1001"] {
            assert!(paging(bad).is_err(), "{bad}");
        }
    }
}
