//! The parameters of a request.

use super::response::json_error;
use crate::report::{LimitRequest, table_name};
use crate::schema::TableName;
use crate::throttle::{LimitName, Side};
use warp::http::StatusCode;
use warp::reply::Response;

/// Names and values as they stand in the address, decoded.
pub type Pairs = Vec<(String, String)>;

/// What is wrong with a request's parameters, as the response that says so.
///
/// Boxed, because a response is large and most requests have none.
pub type Refusal = Box<Response>;

/// Parameters that are taken out one by one; what is left over at the end is an error.
#[derive(Debug)]
pub struct Parameters {
    pairs: Pairs,
}

impl Parameters {
    /// Begins with all parameters of the request.
    pub fn new(pairs: Pairs) -> Parameters {
        Parameters { pairs }
    }

    /// Takes out the table, if one is named.
    pub fn table(&mut self) -> Result<Option<TableName>, Refusal> {
        let Some(text) = self.take("table")? else {
            return Ok(None);
        };
        let name = table_name(&text);
        name.map(Some)
            .map_err(|_| refusal("table must be written like shop.orders"))
    }

    /// Takes out the number of the last difference that was seen; 0 if it is not given.
    pub fn after(&mut self) -> Result<i64, Refusal> {
        let number = self.take("after")?.map(|text| text.parse::<i64>());
        match number {
            None => Ok(0),
            Some(Ok(number)) if number >= 0 => Ok(number),
            Some(_) => Err(refusal("after must be a number from 0")),
        }
    }

    /// Takes out how many rows are wanted.
    pub fn limit(&mut self, default: usize, most: usize) -> Result<usize, Refusal> {
        let number = self.take("limit")?.map(|text| text.parse::<usize>());
        match number {
            None => Ok(default),
            Some(Ok(number)) if (1..=most).contains(&number) => Ok(number),
            Some(_) => Err(refusal(&format!("limit must be a number from 1 to {most}"))),
        }
    }

    /// Takes out a side and the limits that it is to have.
    pub fn limits(&mut self) -> Result<(Side, Vec<(LimitName, LimitRequest)>), Refusal> {
        let side = self.take("side")?.as_deref().and_then(Side::parse);
        let side = side.ok_or_else(|| refusal("side must be source or target"))?;
        let mut wanted = Vec::new();
        for name in LimitName::ALL {
            if let Some(text) = self.take(name.as_str())? {
                let request = LimitRequest::parse(name, &text);
                wanted.push((name, request.map_err(|error| refusal(error.message()))?));
            }
        }
        match wanted.is_empty() {
            true => Err(refusal("say which limit, for example rows_per_second=5000")),
            false => Ok((side, wanted)),
        }
    }

    /// Takes out a parameter that is only ever 1.
    pub fn flag(&mut self, name: &str) -> Result<bool, Refusal> {
        match self.take(name)?.as_deref() {
            None => Ok(false),
            Some("1") => Ok(true),
            Some(_) => Err(refusal(&format!("{name} can only be 1"))),
        }
    }

    /// Ends the reading: a misspelt parameter must not look like one that had no effect.
    pub fn end(self) -> Result<(), Refusal> {
        match self.pairs.is_empty() {
            true => Ok(()),
            false => Err(refusal("there is a parameter that this path does not know")),
        }
    }

    fn take(&mut self, name: &str) -> Result<Option<String>, Refusal> {
        let Some(place) = self.pairs.iter().position(|(given, _)| given == name) else {
            return Ok(None);
        };
        let (_, value) = self.pairs.remove(place);
        match self.pairs.iter().any(|(given, _)| given == name) {
            true => Err(refusal(&format!("{name} is given twice"))),
            false => Ok(Some(value)),
        }
    }
}

fn refusal(message: &str) -> Refusal {
    Box::new(json_error(
        StatusCode::BAD_REQUEST,
        "bad-parameter",
        message,
    ))
}
