//! Writes down what the races measured: `results FOLDER`, the folder with what they kept.
//!
//! The bars go to `results.json` and, as one table, to the terminal; the tables to `RESULTS.md`, each between its two
//! marks, so that what people wrote around them stays, and those of the README; the plots to `plots/`.

mod bars;
mod facts;
mod machine;
mod markdown;
mod measures;
mod plots;

use std::fs;
use std::path::Path;

use measures::Measures;

fn main() {
    let folder = std::env::args()
        .nth(1)
        .expect("the folder with what was kept");
    let measures = Measures::read(Path::new(&folder));
    let races = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();

    let rows = bars::rows(&measures);
    print!("{}", bars::table(&rows));
    let json = serde_json::to_string_pretty(&rows).unwrap();
    fs::write(races.join("results.json"), json + "\n").unwrap();

    plots::write(&measures, &races.join("plots"));

    let machine = machine::paragraph(&measures);
    // The README quotes some of the bars.
    for page in [races.join("RESULTS.md"), races.join("../../README.md")] {
        let old = fs::read_to_string(&page).unwrap();
        let new = markdown::renewed(&old, &measures, &rows, &machine);
        fs::write(page, new).unwrap();
    }
}
